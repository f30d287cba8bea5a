// The photograph that was sent, with the faces found in it to choose from.

import { say } from "./words.js";

const CHIP_PX = 112;
const MARGIN = 0.35;

export class Faces {
  // `onFace` gets the index of a face that was chosen, the largest first.
  constructor({ root, image, boxes, which, list, onFace }) {
    Object.assign(this, { root, image, boxes, which, list, onFace });
    this.answer = null;
  }

  show(photo) {
    this.hide();
    this.image.src = URL.createObjectURL(photo);
    this.root.hidden = false;
    // What the browser cannot read, the service may.
    this.image.onerror = () => {
      this.image.hidden = true;
    };
    this.say();
  }

  hide() {
    this.root.hidden = true;
    this.image.onerror = null;
    if (this.image.src) URL.revokeObjectURL(this.image.src);
    this.image.removeAttribute("src");
    this.image.hidden = false;
    this.mark(null);
  }

  // Shows what was found; `answer` is the service's for a face taken in.
  async mark(answer) {
    this.answer = answer;
    const found = answer?.faces.length > 1 ? answer.faces : [];
    if (found.length) await this.image.decode().catch(() => null);
    if (this.answer !== answer) return;
    for (const box of this.boxes.querySelectorAll("span")) box.remove();
    this.boxes.append(...found.map((face) => this.box(face)));
    this.list.replaceChildren(...found.map((face) => this.chip(face)));
    this.say();
  }

  box({ index, box: [left, top, right, bottom] }) {
    const { width, height, face_index: chosen } = this.answer;
    const frame = document.createElement("span");
    frame.classList.toggle("chosen", index === chosen);
    frame.style.left = `${(100 * left) / width}%`;
    frame.style.top = `${(100 * top) / height}%`;
    frame.style.width = `${(100 * (right - left)) / width}%`;
    frame.style.height = `${(100 * (bottom - top)) / height}%`;
    return frame;
  }

  chip({ index, box: [left, top, right, bottom] }) {
    const chip = document.createElement("canvas");
    chip.width = CHIP_PX;
    chip.height = CHIP_PX;
    const scale = this.image.naturalWidth / this.answer.width;
    const side = (right - left) * (1 + 2 * MARGIN) * scale;
    const x = ((left + right) / 2) * scale - side / 2;
    const y = ((top + bottom) / 2) * scale - side / 2;
    if (side > 0) chip.getContext("2d").drawImage(this.image, x, y, side, side, 0, 0, CHIP_PX, CHIP_PX);
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", String(index === this.answer.face_index));
    button.append(chip);
    button.addEventListener("click", () => {
      if (button.getAttribute("aria-pressed") === "false") this.onFace(index);
    });
    const item = document.createElement("li");
    item.append(button);
    return item;
  }

  // Shows the words again, in the language of now.
  say() {
    const count = this.answer?.faces.length ?? 0;
    this.image.alt = say("photograph_alt");
    this.which.textContent = count > 1 ? say("which_face", { count }) : "";
    [...this.list.children].forEach((item, place) => {
      const words = say("face_of", { number: place + 1, count });
      item.firstElementChild.setAttribute("aria-label", words);
    });
  }
}
