// The filmstrip: a frame for each anchor, and the slider whose thumb lies under them.

import { STEPS } from "./life.js";
import { say } from "./words.js";

const PLACES_A_SECOND = 16;

export class Strip {
  // `onPlace` is called with a place, see life.js, whenever another one is shown.
  constructor({ root, list, slider, play, onPlace }) {
    Object.assign(this, { root, list, slider, play, onPlace });
    this.timer = null;
    slider.addEventListener("input", () => {
      this.stop();
      this.moved();
    });
    play.addEventListener("click", () => (this.timer ? this.stop() : this.start()));
  }

  get place() {
    return this.slider.valueAsNumber;
  }

  // Empty frames for anchors, told by their names.
  lay(names) {
    this.stop();
    this.root.style.setProperty("--columns", names.length);
    this.slider.max = (names.length - 1) * STEPS;
    this.list.replaceChildren(...names.map((name, index) => this.frame(name, index)));
    this.say();
  }

  frame(name, index) {
    const button = document.createElement("button");
    button.type = "button";
    button.disabled = true;
    button.dataset.name = name;
    const image = document.createElement("span");
    image.className = "frame";
    const caption = document.createElement("span");
    caption.className = "caption";
    caption.textContent = name.replace("-", "–");
    button.append(image, caption);
    button.addEventListener("click", () => {
      this.stop();
      this.go(index * STEPS);
    });
    const item = document.createElement("li");
    item.append(button);
    return item;
  }

  // An anchor's picture, as it comes out of the bath.
  develop(index, url) {
    const button = this.list.children[index].firstElementChild;
    const image = new Image();
    image.src = url;
    button.firstElementChild.replaceChildren(image);
    button.disabled = false;
    this.point();
    this.say();
  }

  go(place) {
    this.slider.value = place;
    this.moved();
  }

  moved() {
    this.point();
    this.onPlace(this.place);
  }

  // Marks the frame that the slider is at.
  point() {
    [...this.list.children].forEach((item, index) => {
      const here = index * STEPS === this.place && !item.firstElementChild.disabled;
      item.firstElementChild.setAttribute("aria-pressed", String(here));
    });
  }

  start() {
    if (this.place >= Number(this.slider.max)) this.go(0);
    this.timer = setInterval(() => {
      this.go(this.place + 1);
      if (this.place >= Number(this.slider.max)) this.stop();
    }, 1000 / PLACES_A_SECOND);
    this.say();
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
    this.say();
  }

  // Shows the words again, in the language of now.
  say() {
    this.play.textContent = say(this.timer ? "pause" : "play");
    this.play.classList.toggle("playing", Boolean(this.timer));
    for (const image of this.list.querySelectorAll("img")) {
      image.alt = say("anchor_alt", { name: image.closest("button").dataset.name });
    }
  }
}
