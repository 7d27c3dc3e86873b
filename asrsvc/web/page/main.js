// The page: what state it is in, and what a person can do in each.
//
// idle → recording → busy → done or failed; data-state on <body> says which.

import { Access } from "./access.js";
import * as ask from "./ask.js";
import { badges, element, warnings, warningTitle } from "./badges.js";
import { describe, mayHelp } from "./failures.js";
import { FORMATS, plain, save, stem } from "./files.js";
import * as give from "./give.js";
import { keep, kept } from "./keep.js";
import { changeTheme, decorate, showTheme } from "./looks.js";
import { Meter, NoMicrophone, Recorder } from "./record.js";
import { Player } from "./sound.js";
import { Text } from "./text.js";
import { bytes, call, choose, clock, number, preferred, say, tongue } from "./words.js";

const LANGUAGES = ["auto", "zh", "en", "yue", "ja", "ko"];
const BUSY = new Set([429, 503]);
const MOST_RETRIES = 5;

const $ = (id) => document.getElementById(id);
const player = new Player($("player"), $("unplayable"));
const text = new Text($("text"));
const access = new Access(announce);
const meter = new Meter($("meter"), $("clock"));

let recording = null; // what is or was transcribed: { content, name }
let answer = null; // what is shown: the server's answer, or as much of it as came
let failure = null;
let request = null; // the one under way
let recorder = null;
let stage = () => ""; // what is done just now, in the language of the page

// States and texts

function enter(state) {
  document.body.dataset.state = state;
  const some = text.segments.length > 0;
  $("start").hidden = !(state === "idle" || state === "recording" || (state === "failed" && !some));
  $("drop").hidden = $("options").hidden = $("samples").hidden = state === "recording";
  $("recorder").hidden = state !== "recording";
  $("work").hidden = state !== "busy";
  $("problem").hidden = state !== "failed";
  $("other").hidden = !some;
  $("result").hidden = !(state === "done" || ((state === "busy" || state === "failed") && some));
  $("new").hidden = state !== "done";
}

function announce(words) {
  $("say").textContent = "";
  requestAnimationFrame(() => { $("say").textContent = words; });
}

// Every text anew.
function speak() {
  document.title = say("documentTitle");
  for (const made of document.querySelectorAll("[data-text]")) made.textContent = say(made.dataset.text);
  for (const made of document.querySelectorAll("[data-label]")) made.setAttribute("aria-label", say(made.dataset.label));
  for (const made of document.querySelectorAll("[data-save]")) {
    made.setAttribute("aria-label", say("saveAs", { format: made.textContent }));
  }
  $("tongue-button").textContent = say("otherTongue");
  $("tongue-button").lang = tongue === "en" ? "zh-CN" : "en";
  for (const option of $("language").options) option.textContent = call("languages", option.value);
  $("stage").textContent = stage();
  player.speak();
  text.speak();
  if (answer) showFacts();
  if (failure) showFailure();
  showTheme($("theme-button"));
  access.speak();
}

// What is done just now, and how much of it: a share, or null.
function show(newStage, share = null) {
  stage = newStage;
  $("stage").textContent = stage();
  const bar = $("progress");
  bar.classList.toggle("unknown", share === null);
  if (share === null) bar.removeAttribute("aria-valuenow");
  else bar.setAttribute("aria-valuenow", String(Math.round(share * 100)));
  bar.firstElementChild.style.transform = share === null ? "" : `translateX(${(share - 1) * 100}%)`;
}

// From a recording to its text

function take(content, name) {
  discard();
  request?.cancel();
  recording = { content, name };
  transcribe();
}

async function transcribe(retries = 0) {
  const begun = performance.now();
  const { content, name } = recording;
  failure = null;
  answer = { segments: [] };
  text.clear();
  player.load(content);
  $("work-name").textContent = $("result-name").textContent = name;
  showFacts();
  enter("busy");
  $("work-name").focus({ preventScroll: true });
  const sending = (done) => show(
    () => say("uploading", { done: bytes(done), total: bytes(content.size) }), Math.min(1, done / content.size),
  );
  sending(0);
  const mine = ask.transcribe(content, name, fields(), access.key, {
    sent: sending,
    uploaded: () => show(() => say("waiting")),
    progress: heard,
    segment: (segment) => {
      answer.segments.push(segment);
      text.add(segment);
      enter("busy");
    },
  });
  request = mine;
  try {
    const whole = await mine.done;
    if (request === mine) finish(whole, (performance.now() - begun) / 1000);
  } catch (error) {
    if (request !== mine) return;
    if (error.kind === "refused" && BUSY.has(error.status) && error.retryAfter && retries < MOST_RETRIES) {
      if (await pause(error.retryAfter)) await transcribe(retries + 1);
    } else {
      fail(error);
    }
  }
}

function fields() {
  return { language: $("language").value, use_itn: String($("itn").checked), timestamps: "word", stream: "true" };
}

function heard(seconds, duration) {
  if (!duration) {
    show(() => say("readingOpen", { done: clock(seconds) }));
    return;
  }
  show(() => say("reading", { done: clock(seconds), total: clock(duration) }), Math.min(1, seconds / duration));
  player.describe(duration, text.segments);
}

// Wait before a new try; whether nobody has cancelled it.
async function pause(seconds) {
  let over = false;
  const waiting = { cancel: () => { over = true; fail(new ask.Failure("cancelled")); } };
  request = waiting;
  for (let left = Math.ceil(seconds); left > 0 && !over; left -= 1) {
    show(() => say("retrying", { seconds: left }));
    await new Promise((resolve) => { setTimeout(resolve, 1000); });
  }
  return !over && request === waiting;
}

function finish(whole, seconds) {
  request = null;
  answer = { ...whole, segments: whole.segments ?? [] };
  delete answer.type; // of the event that brought it
  text.show(answer.segments);
  player.describe(answer.duration, answer.segments);
  showFacts();
  enter("done");
  const count = answer.segments.reduce((sum, segment) => sum + (segment.words?.length ?? 0), 0);
  const told = say("done", { count: say("words", { n: count }), seconds: number(seconds) });
  announce([told, ...(answer.warnings ?? []).map(({ code }) => warningTitle(code))].join(" "));
  $("result-name").focus({ preventScroll: true });
}

// What is known of the whole recording.
function showFacts() {
  $("badges").replaceChildren(...badges(answer));
  $("warnings").replaceChildren(...warnings(answer));
  $("warnings").hidden = !$("warnings").firstChild;
}

function fail(error) {
  request = null;
  if (error.kind === "cancelled") {
    announce(say("cancelled"));
    restart();
    return;
  }
  failure = error;
  if (text.segments.length) {
    player.describe(Math.max(text.segments.at(-1).end, player.length), text.segments);
    answer = { text: plain(answer), segments: text.segments, incomplete: true };
  }
  showFailure();
  enter("failed");
  $("problem-title").focus({ preventScroll: true });
  if (error.status === 401) access.askForKey(() => transcribe());
}

function showFailure() {
  const some = text.segments.length > 0;
  const { title, detail } = describe(failure, some);
  $("problem-title").textContent = title;
  $("problem-detail").textContent = detail;
  $("problem-name").textContent = recording && !some ? recording.name : "";
  $("problem-id").textContent = failure.id ? say("requestId", { id: failure.id }) : "";
  $("again").hidden = !recording || !mayHelp(failure);
}

function restart() {
  request?.cancel();
  request = answer = failure = recording = null;
  player.clear();
  text.clear();
  enter("idle");
  $("choose").focus({ preventScroll: true });
}

// The microphone

async function record() {
  failure = recording = null;
  try {
    recorder = await Recorder.begin();
  } catch (error) {
    if (!(error instanceof NoMicrophone)) throw error;
    fail(new ask.Failure("microphone", { message: error.message }));
    return;
  }
  enter("recording");
  $("stop").focus();
  meter.follow(recorder, stop);
}

async function stop() {
  const mine = recorder;
  recorder = null;
  meter.end();
  const { content, name } = await mine.stop();
  if (content.size) take(content, name);
  else fail(new ask.Failure("microphone", { message: "micEmpty" }));
}

function discard() {
  recorder?.discard();
  recorder = null;
  meter.end();
}

// What a person does

async function copy() {
  let said = "copied";
  try {
    await navigator.clipboard.writeText(plain(answer));
    $("copy").textContent = say("copied");
    setTimeout(() => { $("copy").textContent = say("copy"); }, 2000);
  } catch {
    said = "notCopied";
  }
  announce(say(said));
}

function wire() {
  give.listen(
    { input: $("file"), button: $("choose"), box: $("drop"), veil: $("veil"), samples: $("samples") },
    take,
    (name) => announce(say("tookFirst", { name })),
  );
  $("record").onclick = record;
  $("stop").onclick = stop;
  $("discard").onclick = () => { discard(); restart(); };
  $("cancel").onclick = () => request?.cancel();
  $("again").onclick = () => transcribe();
  $("new").onclick = $("other").onclick = restart;
  $("options").onsubmit = (event) => event.preventDefault();
  $("options").onchange = () => {
    keep("localStorage", "language", $("language").value);
    keep("localStorage", "itn", String($("itn").checked));
  };
  $("theme-button").onclick = () => { changeTheme($("theme-button")); player.draw(); };
  $("tongue-button").onclick = () => {
    choose(tongue === "en" ? "zh" : "en");
    keep("localStorage", "tongue", tongue);
    speak();
  };
  player.onmove = (seconds) => text.follow(seconds, !player.paused);
  text.onplay = (seconds) => player.play(seconds);
  text.ontoggle = () => player.toggle();
  $("copy").onclick = copy;
  for (const button of document.querySelectorAll("[data-save]")) {
    const ending = button.dataset.save;
    button.onclick = () => {
      const name = `${stem(recording.name)}.${ending}`;
      save(FORMATS[ending].write(answer), FORMATS[ending].type, name);
      announce(say("saved", { name }));
    };
  }
  addEventListener("beforeunload", (event) => {
    if (request || recorder) event.preventDefault();
  });
}

function begin() {
  for (const language of LANGUAGES) $("language").append(element("option", { value: language }));
  const language = kept("localStorage", "language");
  $("language").value = LANGUAGES.includes(language) ? language : "auto";
  $("itn").checked = kept("localStorage", "itn") !== "false";
  choose(kept("localStorage", "tongue") ?? preferred(navigator.languages));
  decorate($("bars"));
  wire();
  speak();
  enter("idle");
  document.documentElement.classList.remove("waiting");
  access.begin();
}

begin();
