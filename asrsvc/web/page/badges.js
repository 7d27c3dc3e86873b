// What is known of a recording and of its segments, beside the text.
//
// What the server says becomes text, never HTML.

import { call, clock, percent, say } from "./words.js";

export function element(name, { classes = "", text = null, ...attributes } = {}) {
  const made = document.createElement(name);
  if (classes) made.className = classes;
  if (text !== null) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function emotionBadge(emotion) {
  return element("span", { classes: `badge emotion ${emotion}`, text: call("emotions", emotion) });
}

function eventBadge(event) {
  return element("span", { classes: "badge event", text: call("events", event) });
}

// Of the whole recording: items of a list.
export function badges(answer) {
  if (!answer.language) return [];
  const found = [
    element("span", { classes: "badge language", text: call("languages", answer.language) }),
    element("span", { classes: "badge", text: clock(answer.duration) }),
  ];
  if (answer.emotion !== "unknown") found.push(emotionBadge(answer.emotion));
  found.push(...answer.events.map(eventBadge));
  const share = confidence(answer.segments);
  if (share !== null) {
    found.push(element("span", { classes: "badge", text: say("sure", { percent: percent(share) }) }));
  }
  return found.map((badge) => {
    const item = element("li");
    item.append(badge);
    return item;
  });
}

// What the server says of a recording that was transcribed all the same: items of a list.
export function warnings(answer) {
  return (answer.warnings ?? []).map(({ code, message }) => {
    const item = element("li");
    item.append(element("strong", { text: warningTitle(code) }), " ", element("span", { text: message, lang: "en" }));
    return item;
  });
}

export function warningTitle(code) {
  return say(`warning_${code}`) ?? say("warning");
}

// The mean over the time that is spoken; null where nobody speaks.
function confidence(segments) {
  const spoken = segments.filter((segment) => segment.text && segment.end > segment.start);
  const seconds = spoken.reduce((sum, segment) => sum + segment.end - segment.start, 0);
  const sure = spoken.reduce((sum, segment) => sum + segment.confidence * (segment.end - segment.start), 0);
  return seconds > 0 ? sure / seconds : null;
}

// Of a segment.
export function facts(segment) {
  const box = element("div", { classes: "facts" });
  if (segment.text) box.append(element("span", { classes: "tongue", text: call("languages", segment.language) }));
  if (segment.emotion && segment.emotion !== "unknown") box.append(emotionBadge(segment.emotion));
  for (const event of segment.events ?? []) box.append(eventBadge(event));
  if (segment.text) {
    const share = percent(segment.confidence);
    box.append(element("span", { classes: "sure", text: share, title: say("sure", { percent: share }) }));
  }
  return box;
}
