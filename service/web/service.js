// The service that this page came from: its API, as calls. Addresses are relative to the page.

import { Problem } from "./problem.js";

const TRIES = 6;

export class Service {
  // `onBusy` is called when the service asks to come back later, which happens by itself.
  constructor(onBusy) {
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

  // Pictures at anchors or ages; `fields` with lists as repeated fields.
  age(fields, accept, signal) {
    const body = new FormData();
    for (const [name, value] of Object.entries(fields)) {
      if (value !== null && value !== undefined) body.set(name, value);
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

  // The answer, where it is one; else raises a Problem. 503 is tried again when it says.
  async answer(path, options = {}) {
    for (let left = TRIES; ; left -= 1) {
      const response = await fetch(path, options).catch((error) => {
        throw error.name === "AbortError" ? error : new Problem("unreachable");
      });
      if (response.ok) return response;
      if (response.status !== 503 || left <= 1) throw await Problem.of(response);
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
