// How the page looks: the colours that a person chose, and the picture at the start.

import { keep } from "./keep.js";
import { say } from "./words.js";

const NEXT = { system: "light", light: "dark", dark: "system" };

function theme() {
  const chosen = document.documentElement.dataset.theme;
  return chosen in NEXT ? chosen : "system";
}

export function showTheme(button) {
  button.dataset.theme = theme();
  button.title = say(`theme_${theme()}`);
  button.setAttribute("aria-label", button.title);
}

export function changeTheme(button) {
  const next = NEXT[theme()];
  if (next === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  keep("localStorage", "theme", next === "system" ? null : next);
  showTheme(button);
}

// Bars in the shape of a spoken sentence.
export function decorate(picture) {
  const bars = 41;
  for (let bar = 0; bar < bars; bar += 1) {
    const x = bar / (bars - 1);
    const middle = Math.sin(x * Math.PI);
    const tall = 4 + 58 * Math.abs(Math.sin(x * 17.3 + 0.6) * Math.sin(x * 7.1 + 1.1)) * middle ** 0.7;
    const made = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const place = { x: bar * 8 + 2, y: 32 - tall / 2, width: 4, height: tall, rx: 2, opacity: 0.25 + 0.75 * middle };
    for (const [name, value] of Object.entries(place)) made.setAttribute(name, value.toFixed(2));
    picture.append(made);
  }
}
