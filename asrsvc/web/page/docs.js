// The API pages: the viewer, and the key with which the description of the API is asked for.

import { keep, kept } from "./keep.js";

const $ = (id) => document.getElementById(id);

async function open(key) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const response = await fetch("openapi.json", { headers, signal: AbortSignal.timeout(15_000) });
  if (response.status === 401) {
    $("key-form").hidden = false;
    $("wrong").textContent = key ? "The server did not accept this key." : "";
    $("key").focus();
    return;
  }
  if (!response.ok) throw new Error(`openapi.json was answered with status ${response.status}`);
  if (key) keep("sessionStorage", "key", key);
  $("key-form").hidden = true;
  const viewer = globalThis.SwaggerUIBundle({
    spec: await response.json(),
    domNode: $("viewer"),
    deepLinking: true,
    displayRequestDuration: true,
    validatorUrl: null,
    defaultModelsExpandDepth: 0,
    onComplete: () => { if (key) viewer.preauthorizeApiKey("key", key); },
  });
}

function failed(error) {
  $("viewer").textContent = error.message;
}

const scheme = matchMedia("(prefers-color-scheme: dark)");
const theme = () => {
  const chosen = kept("localStorage", "theme");
  document.documentElement.classList.toggle("dark-mode", chosen ? chosen === "dark" : scheme.matches);
};
theme();
scheme.addEventListener("change", theme);
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const typed = $("key").value.trim();
  if (/^[\x21-\x7e]+$/.test(typed)) open(typed).catch(failed);
});
open(kept("sessionStorage", "key")).catch(failed);
