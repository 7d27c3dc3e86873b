// The player: playback, and a waveform to see and to seek in.

import { clock, say } from "./words.js";

const DECODED_BYTES = 64 * 2 ** 20; // a larger file is not decoded for its picture alone
const DECODED_SECONDS = 30 * 60;
const DECODED_RATE = 8000; // Hz; enough for a picture
const BAR = 3; // pixels of a bar, and of the gap beside it
const GAP = 2;

export class Player {
  onmove = () => {}; // called with the seconds played, often

  #audio;
  #box;
  #canvas;
  #panel;
  #note;
  #now;
  #total;
  #button;
  #address = null;
  #duration = 0;
  #loudness = null; // Float32Array, 0 to 1, many more points than bars
  #segments = [];
  #frame = 0;
  #ticket = 0;

  constructor(panel, note) {
    this.#panel = panel;
    this.#note = note;
    this.#audio = panel.querySelector("audio");
    this.#box = panel.querySelector(".wave");
    this.#canvas = panel.querySelector("canvas");
    this.#button = panel.querySelector(".play");
    [this.#now, this.#total] = panel.querySelectorAll(".times span:not([aria-hidden])");
    this.#button.addEventListener("click", () => this.toggle());
    this.#audio.addEventListener("play", () => this.#playing(true));
    this.#audio.addEventListener("pause", () => this.#playing(false));
    this.#audio.addEventListener("ended", () => this.#playing(false));
    this.#audio.addEventListener("seeked", () => this.#moved());
    this.#audio.addEventListener("timeupdate", () => this.#moved());
    this.#audio.addEventListener("error", () => { if (this.#address) this.#silent(true); });
    this.#box.addEventListener("pointerdown", (event) => this.#drag(event));
    this.#box.addEventListener("pointermove", (event) => { if (event.buttons & 1) this.#drag(event); });
    this.#box.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.draw()).observe(this.#box);
  }

  get seconds() { return this.#audio.currentTime; }
  get paused() { return this.#audio.paused; }
  get length() { return Number.isFinite(this.#audio.duration) ? this.#audio.duration : this.#duration; }

  // Take a new recording; its length is known only when the answer is there.
  load(recording) {
    this.clear();
    const ticket = this.#ticket;
    this.#address = URL.createObjectURL(recording);
    this.#audio.src = this.#address;
    this.#audio.addEventListener("loadedmetadata", () => {
      // Chromium's own recordings say no length: a step beyond the end makes it look for it.
      if (this.#audio.duration === Infinity) {
        this.#audio.addEventListener("timeupdate", () => { this.#audio.currentTime = 0; }, { once: true });
        this.#audio.currentTime = 1e7;
      }
    }, { once: true });
    if (recording.size <= DECODED_BYTES) {
      this.#listen(recording, ticket).catch(() => {}); // no picture: the segments are drawn instead
    }
  }

  clear() {
    this.#ticket += 1;
    this.#audio.pause();
    if (this.#address) URL.revokeObjectURL(this.#address);
    this.#address = null;
    this.#audio.removeAttribute("src");
    this.#duration = 0;
    this.#loudness = null;
    this.#segments = [];
    this.#silent(false);
    this.draw();
  }

  // Say how long it is, in seconds, and where in it somebody speaks.
  describe(duration, segments) {
    this.#duration = duration;
    this.#segments = segments;
    this.speak();
    this.draw();
  }

  // Texts anew, in the language of the page.
  speak() {
    this.#box.setAttribute("aria-label", say("position"));
    this.#button.setAttribute("aria-label", say(this.#audio.paused ? "play" : "pause"));
    this.#total.textContent = clock(this.#duration);
    this.#box.setAttribute("aria-valuemax", String(Math.round(this.#duration)));
    this.#moved();
  }

  play(from) {
    this.seek(from);
    this.#audio.play().catch(() => {}); // a format that cannot be played has been said already
  }

  toggle() {
    if (!this.#audio.paused) this.#audio.pause();
    else this.#audio.play().catch(() => {});
  }

  seek(seconds) {
    this.#audio.currentTime = Math.min(Math.max(0, seconds), Math.max(0, this.#duration - 0.01));
  }

  async #listen(recording, ticket) {
    // Decoding is for whole files only: of a long one it would take gigabytes.
    const length = await this.#length();
    if (length > DECODED_SECONDS) return;
    const context = new OfflineAudioContext(1, 1, DECODED_RATE);
    const buffer = await context.decodeAudioData(await recording.arrayBuffer());
    if (ticket !== this.#ticket) return;
    this.#loudness = loudness(buffer);
    if (!this.#duration) this.#duration = buffer.duration;
    this.speak();
    this.draw();
  }

  // The recording's own word on its length; Infinity and NaN are none.
  #length() {
    const told = () => (Number.isFinite(this.#audio.duration) ? this.#audio.duration : 0);
    if (this.#audio.readyState >= 1) return Promise.resolve(told());
    return new Promise((resolve) => {
      this.#audio.addEventListener("loadedmetadata", () => resolve(told()), { once: true });
      this.#audio.addEventListener("error", () => resolve(0), { once: true });
    });
  }

  #silent(silent) {
    this.#panel.classList.toggle("silent", silent);
    this.#note.hidden = !silent;
  }

  #playing(playing) {
    this.#panel.classList.toggle("playing", playing);
    this.#button.setAttribute("aria-label", say(playing ? "pause" : "play"));
    cancelAnimationFrame(this.#frame);
    const step = () => {
      this.#moved();
      this.#frame = requestAnimationFrame(step);
    };
    if (playing) step();
    else this.#moved();
  }

  #moved() {
    const seconds = Math.min(this.#audio.currentTime, this.#duration || Infinity);
    this.#now.textContent = clock(seconds);
    this.#box.setAttribute("aria-valuenow", String(Math.round(seconds)));
    this.#box.setAttribute("aria-valuetext", say("ofTime", { now: clock(seconds), total: clock(this.#duration) }));
    this.draw();
    this.onmove(seconds);
  }

  #drag(event) {
    if (event.button > 0 || !this.#duration) return;
    this.#box.setPointerCapture(event.pointerId);
    const frame = this.#box.getBoundingClientRect();
    this.seek(((event.clientX - frame.left) / frame.width) * this.#duration);
  }

  #key(event) {
    const step = event.shiftKey ? 15 : 3;
    const to = {
      ArrowLeft: this.seconds - step, ArrowDown: this.seconds - step,
      ArrowRight: this.seconds + step, ArrowUp: this.seconds + step,
      PageDown: this.seconds - 30, PageUp: this.seconds + 30, Home: 0, End: this.#duration,
    }[event.key];
    if (to !== undefined) this.seek(to);
    else if (event.key === " " || event.key === "Enter") this.toggle();
    else return;
    event.preventDefault();
  }

  // The picture: bars as loud as the sound, or flat ones where somebody speaks.
  draw() {
    const scale = globalThis.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.#box;
    if (!width || !height) return;
    if (this.#canvas.width !== Math.round(width * scale) || this.#canvas.height !== Math.round(height * scale)) {
      this.#canvas.width = Math.round(width * scale);
      this.#canvas.height = Math.round(height * scale);
    }
    const style = getComputedStyle(this.#box);
    const paint = this.#canvas.getContext("2d");
    paint.setTransform(scale, 0, 0, scale, 0, 0);
    paint.clearRect(0, 0, width, height);
    const bars = Math.max(1, Math.floor((width + GAP) / (BAR + GAP)));
    const played = this.#duration ? (this.#audio.currentTime / this.#duration) * bars : 0;
    for (let bar = 0; bar < bars; bar += 1) {
      const tall = Math.max(BAR, this.#height(bar / bars, (bar + 1) / bars) * (height - 4));
      paint.fillStyle = bar < played ? style.caretColor : style.color;
      paint.beginPath();
      paint.roundRect(bar * (BAR + GAP), (height - tall) / 2, BAR, tall, BAR / 2);
      paint.fill();
    }
  }

  #height(from, to) {
    if (this.#loudness) {
      const first = Math.floor(from * this.#loudness.length);
      const points = this.#loudness.subarray(first, Math.max(first + 1, Math.floor(to * this.#loudness.length)));
      return points.reduce((sum, point) => sum + point, 0) / points.length;
    }
    const [start, end] = [from * this.#duration, to * this.#duration];
    return this.#segments.some((segment) => segment.start < end && segment.end > start) ? 0.45 : 0;
  }
}

// How loud a recording is along its way: up to 2,000 points from 0 to 1, the square root of the mean power.
function loudness(buffer) {
  const samples = buffer.getChannelData(0);
  const points = new Float32Array(Math.min(2000, Math.max(1, samples.length)));
  for (let point = 0; point < points.length; point += 1) {
    const from = Math.floor((point * samples.length) / points.length);
    const to = Math.max(from + 1, Math.floor(((point + 1) * samples.length) / points.length));
    let power = 0;
    for (let i = from; i < to; i += 1) power += samples[i] ** 2;
    points[point] = Math.sqrt(power / (to - from));
  }
  const loud = Math.max(1e-3, points.toSorted()[Math.floor(points.length * 0.98)]);
  return points.map((point) => Math.min(1, point / loud));
}
