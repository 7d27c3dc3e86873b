// What is said of a failure, in the language of the page.

import { say } from "./words.js";

const LATER = new Set([401, 408, 429, 500, 502, 503, 504, 507]); // the same request may succeed later

// { title, detail } of an `ask.Failure`; `some`: whether a part of the text is there.
export function describe(failure, some) {
  const told = {
    refused: () => [say(failure.code ?? "") ?? say("failed"), failure.message],
    lost: () => [say("lost"), say(some ? "lostDetail" : "lostEarly")],
    silent: () => [say("silent"), some ? say("lostDetail") : ""],
    foreign: () => [say("notJson"), say("notJsonDetail", { status: failure.status })],
    microphone: () => [say(failure.message), say(`${failure.message}Detail`)],
  }[failure.kind];
  const [title, detail] = told ? told() : [say("failed"), failure.message];
  return { title, detail };
}

// Whether the same request may succeed later.
export function mayHelp(failure) {
  return failure.kind !== "refused" || !failure.status || LATER.has(failure.status);
}
