// The transcript on the page: segments, words that can be clicked, and the word that is heard just now.
//
// What the server says becomes text nodes, never HTML.

import { element, facts } from "./badges.js";
import { clock, percent, say, TAGS } from "./words.js";

const DOUBT = 0.6; // below this share of certainty a word is underlined
const LINGER_SECONDS = 0.25; // a word stays marked so long after its end, if no other begins

// A segment's text cut into words and what stands between them: [{ text, word or null }].
export function pieces(segment) {
  const found = [];
  let at = 0;
  for (const word of segment.words ?? []) {
    const start = word.word ? segment.text.indexOf(word.word, at) : -1;
    if (start < 0) continue;
    if (start > at) found.push({ text: segment.text.slice(at, start), word: null });
    at = start + word.word.length;
    found.push({ text: word.word, word });
  }
  if (at < segment.text.length) found.push({ text: segment.text.slice(at), word: null });
  return found;
}

export class Text {
  onplay = () => {}; // called with seconds: play from there
  ontoggle = () => {};

  #box;
  #words = []; // { start, end, element, row }, in their order
  #rows = []; // { segment, element }
  #spoken = new Set(); // languages
  #heard = -1;
  #cursor = -1;

  constructor(box) {
    this.#box = box;
    box.addEventListener("click", (event) => this.#click(event));
    box.addEventListener("keydown", (event) => this.#key(event));
    box.addEventListener("blur", () => this.#point(-1));
  }

  clear() {
    this.#box.replaceChildren();
    this.#words = [];
    this.#rows = [];
    this.#spoken.clear();
    this.#heard = -1;
    this.#cursor = -1;
  }

  get segments() { return this.#rows.map((row) => row.segment); }

  // Show all of them; those that are there already stay as they are.
  show(segments) {
    if (segments.length < this.#rows.length) this.clear();
    this.#box.querySelector(".nothing")?.remove();
    for (const segment of segments.slice(this.#rows.length)) this.add(segment);
    if (!segments.some((segment) => segment.text)) this.#box.append(element("p", { classes: "nothing", text: say("nobody") }));
  }

  add(segment) {
    const row = this.#rows.length;
    const made = element("div", { classes: "segment arriving" });
    made.append(this.#at(segment), this.#line(segment, row), facts(segment));
    this.#rows.push({ segment, element: made });
    this.#box.append(made);
    if (segment.text) this.#spoken.add(segment.language);
    this.#box.classList.toggle("mixed", this.#spoken.size > 1);
  }

  // Everything anew, in the language of the page.
  speak() {
    this.#box.setAttribute("aria-label", say("transcript"));
    const segments = this.segments;
    if (!segments.length && !this.#box.firstChild) return;
    this.clear();
    this.show(segments);
    for (const row of this.#rows) row.element.classList.remove("arriving");
  }

  #at(segment) {
    const time = clock(segment.start);
    const button = element("button", { classes: "at", type: "button", text: time, "aria-label": say("playFrom", { time }) });
    button.addEventListener("click", () => this.onplay(segment.start));
    return button;
  }

  #line(segment, row) {
    const line = element("p", { classes: "words" });
    if (TAGS[segment.language]) line.lang = TAGS[segment.language];
    for (const { text, word } of pieces(segment)) {
      if (word === null) {
        line.append(text);
        continue;
      }
      const made = element("span", { classes: word.confidence < DOUBT ? "word doubt" : "word", text });
      made.title = `${clock(word.start)} · ${say("sure", { percent: percent(word.confidence) })}`;
      made.dataset.word = String(this.#words.length);
      this.#words.push({ start: word.start, end: word.end, element: made, row });
      line.append(made);
    }
    return line;
  }

  // Mark what is heard at this time, and keep it in sight while it plays.
  follow(seconds, playing) {
    const last = after(this.#words, seconds) - 1;
    const heard = last >= 0 && seconds <= this.#words[last].end + LINGER_SECONDS ? last : -1;
    if (heard === this.#heard) return;
    const [before, now] = [this.#words[this.#heard], this.#words[heard]];
    before?.element.classList.remove("heard");
    now?.element.classList.add("heard");
    this.#heard = heard;
    if (!now || before?.row === now.row) return;
    for (const row of this.#box.querySelectorAll(".current")) row.classList.remove("current");
    this.#rows[now.row].element.classList.add("current");
    if (playing) reveal(this.#rows[now.row].element);
  }

  #click(event) {
    const found = event.target.closest(".word");
    // Who marks text does not want to hear it.
    if (found && getSelection().isCollapsed) this.onplay(this.#words[Number(found.dataset.word)].start);
  }

  #key(event) {
    if (event.target !== this.#box || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = this.#cursor;
    switch (event.key) {
      case "ArrowRight": this.#point(Math.min(at + 1, this.#words.length - 1)); break;
      case "ArrowLeft": this.#point(Math.max(at - 1, 0)); break;
      case "ArrowDown": this.#point(this.#line_of(at, 1)); break;
      case "ArrowUp": this.#point(this.#line_of(at, -1)); break;
      case "Enter": if (this.#words[at]) this.onplay(this.#words[at].start); break;
      case " ": this.ontoggle(); break;
      default: return;
    }
    event.preventDefault();
  }

  // The first word of the line before or after that of this word.
  #line_of(at, step) {
    const row = this.#words[at]?.row;
    if (row === undefined) return this.#words.length ? 0 : -1;
    const rows = [...new Set(this.#words.map((word) => word.row))];
    const to = rows[rows.indexOf(row) + step] ?? row;
    return this.#words.findIndex((word) => word.row === to);
  }

  #point(at) {
    this.#words[this.#cursor]?.element.classList.remove("cursor");
    this.#cursor = at;
    const word = this.#words[at];
    if (!word) return;
    word.element.classList.add("cursor");
    reveal(word.element);
  }
}

// How many words begin at this time or before it.
function after(words, seconds) {
  let [low, high] = [0, words.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (words[middle].start <= seconds) low = middle + 1;
    else high = middle;
  }
  return low;
}

function reveal(made) {
  const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
  made.scrollIntoView({ block: "nearest", behavior });
}
