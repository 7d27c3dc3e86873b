// Speaking with the server: the upload and the stream that answers it.
//
// XMLHttpRequest and not fetch: it alone tells how much of an upload has been sent.

const SILENCE_SECONDS = 600; // longer than a request may wait in the queue

// What went wrong. `kind`: refused (the server's own answer: status, code, retryAfter), lost, silent,
// foreign (an answer of somebody else) or cancelled.
export class Failure extends Error {
  constructor(kind, facts = {}) {
    super(facts.message ?? kind);
    Object.assign(this, { kind, ...facts });
  }
}

// Reads server-sent events out of text that grows; events may be cut anywhere.
export class EventReader {
  #rest = "";

  // The data of each event that the new text has completed.
  read(text) {
    const events = (this.#rest + text).split(/\r?\n\r?\n/);
    this.#rest = events.pop();
    return events.map((event) =>
      event
        .split(/\r?\n/)
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).replace(/^ /, ""))
        .join("\n"),
    ).filter((data) => data !== "");
  }
}

// Send a recording.
//
// on.sent(bytes, total), on.uploaded(), on.progress(seconds, duration or null), on.segment(segment).
// Gives { done: a promise of the whole answer, cancel() }.
export function transcribe(recording, name, fields, key, on) {
  const form = new FormData();
  for (const [field, value] of Object.entries(fields)) form.append(field, value);
  form.append("file", recording, name);

  const request = new XMLHttpRequest();
  const reader = new EventReader();
  let seen = 0;
  let answer = null;
  let failure = null;
  let silence = 0;

  const listen = () => {
    clearTimeout(silence);
    silence = setTimeout(() => {
      failure ??= new Failure("silent");
      request.abort();
    }, SILENCE_SECONDS * 1000);
  };
  const streaming = () => (request.getResponseHeader("Content-Type") ?? "").startsWith("text/event-stream");
  const id = () => request.getResponseHeader("X-Request-Id");

  const take = () => {
    const text = request.responseText.slice(seen);
    seen += text.length;
    for (const data of reader.read(text)) {
      if (data === "[DONE]") continue;
      const event = parsed(data);
      if (event?.type === "progress") on.progress(event.audio_seconds, event.duration);
      else if (event?.type === "segment") on.segment(event.segment);
      else if (event?.type === "done") answer = event;
      else if (event?.type === "error") failure ??= new Failure("refused", { ...event.error, id: id() });
    }
  };

  const finished = new Promise((resolve, reject) => {
    request.upload.onprogress = (event) => { listen(); on.sent(event.loaded, event.total); };
    request.upload.onload = () => { listen(); on.uploaded(); };
    request.onprogress = () => { listen(); if (request.status === 200 && streaming()) take(); };
    request.onload = () => {
      const body = streaming() ? null : parsed(request.responseText);
      if (request.status === 200 && streaming()) take();
      else if (request.status === 200 && body !== null && typeof body.text === "string") answer = body;
      else failure ??= refusal(request, body, id());
      if (failure) reject(failure);
      else if (answer) resolve(answer);
      else reject(new Failure("lost", { id: id() }));
    };
    request.onerror = () => reject(failure ?? new Failure("lost", { id: request.status ? id() : null }));
    request.onabort = () => reject(failure ?? new Failure("cancelled"));
    request.onloadend = () => clearTimeout(silence);
  });

  request.open("POST", "api/transcribe");
  if (key) request.setRequestHeader("Authorization", `Bearer ${key}`);
  listen();
  request.send(form);
  return { done: finished, cancel: () => request.abort() };
}

function refusal(request, body, id) {
  if (body === null || typeof body.error?.message !== "string") {
    return new Failure("foreign", { status: request.status, id });
  }
  const wait = Number.parseFloat(request.getResponseHeader("Retry-After"));
  const retryAfter = Number.isFinite(wait) ? Math.min(60, Math.max(1, wait)) : null;
  return new Failure("refused", { status: request.status, ...body.error, retryAfter, id });
}

function parsed(text) {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}

// The served models: { status, models }. Status 401: a key is needed, or the given one is wrong.
export async function models(key) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const response = await fetch("v1/models", { headers, signal: AbortSignal.timeout(15_000) });
  const body = response.ok ? parsed(await response.text()) : null;
  return { status: response.status, models: Array.isArray(body?.data) ? body.data : [] };
}

// What the service says of itself; null where it does not answer.
export async function health() {
  try {
    const response = await fetch("health", { signal: AbortSignal.timeout(15_000) });
    return parsed(await response.text());
  } catch {
    return null;
  }
}
