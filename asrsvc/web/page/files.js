// What can be saved: plain text, SubRip, WebVTT, JSON.

import { toSrt, toVtt } from "./subtitles.js";

export const FORMATS = {
  txt: { type: "text/plain", write: (answer) => `${plain(answer)}\n` },
  srt: { type: "application/x-subrip", write: (answer) => toSrt(answer.segments) },
  vtt: { type: "text/vtt", write: (answer) => toVtt(answer.segments) },
  json: { type: "application/json", write: (answer) => `${JSON.stringify(answer, null, 2)}\n` },
};

// The text alone, a line for each segment.
export function plain(answer) {
  return answer.segments.map((segment) => segment.text).filter(Boolean).join("\n");
}

// Offer a file to the person.
export function save(content, type, name) {
  const address = URL.createObjectURL(new Blob([content], { type: `${type};charset=utf-8` }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

// A recording's name without its ending and without what file systems do not take.
export function stem(name) {
  const bare = name.replace(/\.[^.]{1,5}$/, "").replace(/[\u0000-\u001f\u007f/\\:*?"<>|]/g, "_").trim();
  return (bare || "transcript").slice(0, 100);
}
