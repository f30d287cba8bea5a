// The camera: a dialog with a viewfinder that gives one photograph.

import { Problem } from "./problem.js";

const REFUSALS = { NotAllowedError: "camera_refused", NotFoundError: "camera_missing" };

export class Camera {
  constructor({ dialog, finder, take, cancel, onPhoto, onProblem }) {
    Object.assign(this, { dialog, finder, take, onPhoto, onProblem });
    this.stream = null;
    take.addEventListener("click", () => this.photograph());
    cancel.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => this.stop());
    finder.addEventListener("playing", () => {
      take.disabled = false;
    });
  }

  // Browsers have it in secure contexts: HTTPS or this very machine.
  static get exists() {
    return Boolean(navigator.mediaDevices?.getUserMedia);
  }

  async open() {
    this.take.disabled = true;
    this.dialog.showModal();
    try {
      const video = { facingMode: "user", width: { ideal: 1280 }, height: { ideal: 960 } };
      const stream = await navigator.mediaDevices.getUserMedia({ video });
      if (!this.dialog.open) {
        for (const track of stream.getTracks()) track.stop();
        return;
      }
      this.stream = stream;
      this.finder.srcObject = stream;
    } catch (error) {
      this.dialog.close();
      this.onProblem(new Problem(REFUSALS[error.name] ?? "camera_failed"));
    }
  }

  photograph() {
    const canvas = document.createElement("canvas");
    canvas.width = this.finder.videoWidth;
    canvas.height = this.finder.videoHeight;
    canvas.getContext("2d").drawImage(this.finder, 0, 0);
    canvas.toBlob((photo) => {
      this.dialog.close();
      this.onPhoto(photo);
    }, "image/jpeg", 0.95);
  }

  stop() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    this.finder.srcObject = null;
  }
}
