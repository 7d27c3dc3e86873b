// Who we speak with: the key that the server may ask for, the model it serves, and how it is.

import * as ask from "./ask.js";
import { keep, kept } from "./keep.js";
import { element } from "./badges.js";
import { say } from "./words.js";

const $ = (id) => document.getElementById(id);

export class Access {
  #key = kept("sessionStorage", "key");
  #models = [];
  #condition = null;
  #announce;

  constructor(announce) {
    this.#announce = announce;
    $("key-button").onclick = () => this.askForKey();
    $("key-cancel").onclick = () => $("key-dialog").close();
  }

  get key() { return this.#key; }

  // Ask the server who it is; it may ask back for a key.
  async begin() {
    ask.health().then((found) => {
      this.#condition = found;
      this.speak();
    });
    if (!(await this.#enter(this.#key))) this.askForKey();
  }

  // Open the dialog; `after` is done once the server has accepted a key.
  askForKey(after = () => {}) {
    const dialog = $("key-dialog");
    $("key-button").hidden = false;
    $("key-wrong").textContent = this.#key ? say("keyWrong") : "";
    $("key").value = "";
    $("key-form").onsubmit = async (event) => {
      event.preventDefault();
      const typed = $("key").value.trim();
      if (!typed) {
        $("key-wrong").textContent = say("keyMissing");
      } else if (/^[\x21-\x7e]+$/.test(typed) && (await this.#enter(typed))) {
        this.#key = typed;
        keep("sessionStorage", "key", typed);
        dialog.close();
        this.#announce(say("keyUsed"));
        after();
        return;
      } else {
        $("key-wrong").textContent = say("keyWrong");
      }
      $("key").focus();
    };
    if (!dialog.open) dialog.showModal();
  }

  // Whether the server lets this key in; what it serves is shown.
  async #enter(key) {
    try {
      const { status, models } = await ask.models(key);
      if (status === 401) return false;
      this.#models = models;
    } catch {
      this.#models = []; // the page works without
    }
    this.speak();
    return true;
  }

  // Everything in the language of the page.
  speak() {
    const reason = (this.#condition?.problems ?? []).join("; ");
    $("health").hidden = !reason;
    if (reason) $("health").textContent = say(this.#condition.model_loaded ? "degraded" : "noModel", { reason });
    const model = this.#models.find((one) => one.name) ?? this.#models[0];
    $("model").replaceChildren();
    if (!model) return;
    $("model").append(`${say("model")} `, element("strong", { text: model.name ?? model.id }));
    const version = model.version ?? model.id;
    if (version !== (model.name ?? model.id)) $("model").append(` · ${version}`);
    const licence = model.licence ?? model.license;
    if (licence) $("model").append(` · ${say("licence", { licence: licence.name ?? licence })}`);
  }
}
