// The API key, where the service asks for one. It stays in this tab until the tab is closed.

import { Problem } from "./problem.js";
import { say } from "./words.js";

const KEPT = "anchorage-key";

export class Key {
  constructor({ dialog, form, input, reason }) {
    Object.assign(this, { dialog, input, reason });
    this.value = recalled();
    this.asking = null;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (input.value.trim()) dialog.close(input.value.trim());
    });
  }

  get headers() {
    return this.value ? { Authorization: `Bearer ${this.value}` } : {};
  }

  // Asks for a key, once for all who want it; `refused` says that the one at hand is unknown.
  // Raises a Problem where none is given.
  ask(refused) {
    this.asking ??= this.answer(refused).finally(() => {
      this.asking = null;
    });
    return this.asking;
  }

  async answer(refused) {
    this.reason.textContent = say(refused ? "key_refused" : "key_needed");
    this.input.value = "";
    this.dialog.returnValue = "";
    this.dialog.showModal();
    await new Promise((resolve) => this.dialog.addEventListener("close", resolve, { once: true }));
    if (!this.dialog.returnValue) throw new Problem("unauthorized");
    this.value = this.dialog.returnValue;
    this.dialog.returnValue = "";
    keep(this.value);
  }
}

function recalled() {
  try {
    return sessionStorage.getItem(KEPT) ?? "";
  } catch {
    return ""; // Storage may be switched off.
  }
}

function keep(value) {
  try {
    sessionStorage.setItem(KEPT, value);
  } catch {
    // It holds for this visit, then.
  }
}
