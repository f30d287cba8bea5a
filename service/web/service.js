// The service that this page came from: its API, as calls. Addresses are relative to the page.

import { Problem } from "./problem.js";

const TRIES = 6;

export class Service {
  // `onBusy` is called when the service asks to come back later, which happens by itself; `key` is
  // asked where the service wants one.
  constructor({ key, onBusy }) {
    this.key = key;
    this.onBusy = onBusy;
  }

  models() {
    return this.document("models");
  }

  anchors(model) {
    return this.document(`anchors?${new URLSearchParams({ model })}`);
  }

  face(id, model, signal) {
    return this.document(`faces/${id}?${new URLSearchParams({ model })}`, { signal });
  }

  async forget(id) {
    await this.answer(`faces/${id}`, { method: "DELETE", keepalive: true });
  }

  // Pictures at anchors or ages; a list in `fields` is a field repeated.
  age(fields, accept, signal) {
    const body = new FormData();
    for (const [name, value] of Object.entries(fields)) {
      if (value === null || value === undefined) continue;
      for (const each of Array.isArray(value) ? value : [value]) body.append(name, each);
    }
    return this.answer("age", { method: "POST", body, headers: { Accept: accept }, signal });
  }

  // A frame sequence of a face taken in.
  interpolate(fields, accept, signal) {
    const path = `interpolate?${new URLSearchParams(fields)}`;
    return this.answer(path, { headers: { Accept: accept }, signal });
  }

  async document(path, options) {
    return (await this.answer(path, options)).json();
  }

  // The answer, where it is one; else raises a Problem. 429 and 503 are tried again when they say.
  async answer(path, options = {}) {
    for (let left = TRIES; ; ) {
      const sent = this.key.value;
      const headers = { ...options.headers, ...this.key.headers };
      const response = await fetch(path, { ...options, headers }).catch((error) => {
        throw error.name === "AbortError" ? error : new Problem("unreachable");
      });
      if (response.ok) return response;
      if (response.status === 401) {
        // Another call may have been given a key meanwhile.
        if (sent === this.key.value) await this.key.ask(Boolean(sent));
        continue;
      }
      left -= 1;
      if (![429, 503].includes(response.status) || !left) throw await Problem.of(response);
      this.onBusy();
      await pause(Number(response.headers.get("Retry-After")) || 1, options.signal);
    }
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
