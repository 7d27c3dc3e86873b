// The microphone: recording in whatever the browser writes, with a level that can be drawn.

import { clock } from "./words.js";

const KINDS = ["audio/webm;codecs=opus", "audio/mp4", "audio/ogg;codecs=opus", "audio/webm"];
const ENDINGS = { "audio/webm": "webm", "audio/mp4": "m4a", "audio/ogg": "ogg" };
const LONGEST_SECONDS = 4 * 3600;

// Why nothing can be recorded: the name of a text.
export class NoMicrophone extends Error {}

export class Recorder {
  #stream;
  #recorder;
  #context;
  #analyser;
  #samples;
  #parts = [];
  #started = 0;

  // Ask for the microphone and begin.
  static async begin() {
    if (!globalThis.isSecureContext || !navigator.mediaDevices || !globalThis.MediaRecorder) {
      throw new NoMicrophone("micInsecure");
    }
    const self = new Recorder();
    try {
      self.#stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
    } catch (error) {
      throw new NoMicrophone(error.name === "NotFoundError" ? "micMissing" : "micDenied");
    }
    const mimeType = KINDS.find((kind) => MediaRecorder.isTypeSupported(kind));
    self.#recorder = new MediaRecorder(self.#stream, mimeType ? { mimeType } : {});
    self.#recorder.ondataavailable = (event) => { if (event.data.size) self.#parts.push(event.data); };
    self.#recorder.start(1000);
    self.#started = performance.now();
    self.#context = new AudioContext();
    self.#analyser = new AnalyserNode(self.#context, { fftSize: 1024 });
    self.#samples = new Float32Array(self.#analyser.fftSize);
    new MediaStreamAudioSourceNode(self.#context, { mediaStream: self.#stream }).connect(self.#analyser);
    return self;
  }

  get seconds() { return (performance.now() - this.#started) / 1000; }
  get tooLong() { return this.seconds > LONGEST_SECONDS; }

  // How loud it is just now: 0 to 1, on a scale of 50 dB.
  level() {
    this.#analyser.getFloatTimeDomainData(this.#samples);
    let power = 0;
    for (const sample of this.#samples) power += sample * sample;
    const decibels = 10 * Math.log10(power / this.#samples.length + 1e-10);
    return Math.min(1, Math.max(0, (decibels + 55) / 50));
  }

  // End it: the recording and a name for it.
  async stop() {
    const stopped = new Promise((resolve) => { this.#recorder.onstop = resolve; });
    if (this.#recorder.state !== "inactive") {
      this.#recorder.stop();
      await stopped;
    }
    this.#release();
    const type = this.#recorder.mimeType.split(";")[0] || this.#parts[0]?.type || "audio/webm";
    const now = new Date();
    const two = (number) => String(number).padStart(2, "0");
    const day = `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
    const name = `recording ${day} ${two(now.getHours())}.${two(now.getMinutes())}.${ENDINGS[type] ?? "webm"}`;
    return { content: new Blob(this.#parts, { type }), name };
  }

  // End it and forget what was recorded.
  discard() {
    this.#recorder.ondataavailable = null;
    if (this.#recorder.state !== "inactive") this.#recorder.stop();
    this.#parts = [];
    this.#release();
  }

  #release() {
    for (const track of this.#stream.getTracks()) track.stop();
    this.#context.close();
  }
}

const STEP = 6; // pixels from one bar of the meter to the next
const BARS_A_SECOND = 20;

// What is seen while recording: how loud it is, and for how long.
export class Meter {
  #canvas;
  #clock;
  #levels = [];
  #timer = 0;

  constructor(canvas, label) {
    this.#canvas = canvas;
    this.#clock = label;
  }

  // Follow a recorder; `full` is called when it has recorded as much as it may.
  follow(recorder, full) {
    this.#levels = [];
    this.#timer = setInterval(() => {
      this.#levels.push(recorder.level());
      this.#clock.textContent = clock(recorder.seconds);
      this.#draw();
      if (recorder.tooLong) full();
    }, 1000 / BARS_A_SECOND);
  }

  end() {
    clearInterval(this.#timer);
    this.#clock.textContent = clock(0);
  }

  #draw() {
    const scale = globalThis.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    this.#canvas.width = width * scale;
    this.#canvas.height = height * scale;
    while (this.#levels.length > width / STEP) this.#levels.shift();
    const paint = this.#canvas.getContext("2d");
    paint.scale(scale, scale);
    paint.fillStyle = getComputedStyle(this.#canvas).color;
    this.#levels.forEach((level, index) => {
      const tall = Math.max(3, level * height);
      paint.beginPath();
      paint.roundRect(width - (this.#levels.length - index) * STEP, (height - tall) / 2, 3, tall, 1.5);
      paint.fill();
    });
  }
}
