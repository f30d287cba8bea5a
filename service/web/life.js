// The pictures of one face through its years. Places are whole numbers: one for each anchor and
// STEPS - 1 between neighbours, so that anchors lie equally far apart, as in the filmstrip.

import { parts } from "./stream.js";

export const STEPS = 16;

// Every fourth place is fetched first, then every second, then all; this many at a time, so that
// what the slider has moved to comes soon.
const STRIDES = [4, 2, 1];
const AT_A_TIME = 20;

export class Life {
  // `centres` are the anchors' ages in years, in order.
  constructor(centres, continuous) {
    this.centres = centres;
    this.continuous = continuous;
    this.pictures = new Map();
    this.expected = continuous ? this.last + 1 : centres.length;
  }

  get last() {
    return (this.centres.length - 1) * STEPS;
  }

  get share() {
    return this.pictures.size / this.expected;
  }

  years(place) {
    const left = Math.min(Math.floor(place / STEPS), this.centres.length - 1);
    const right = Math.min(left + 1, this.centres.length - 1);
    const share = place / STEPS - left;
    return this.centres[left] + share * (this.centres[right] - this.centres[left]);
  }

  // The address of the picture now shown at a place; the image is kept so that it stays decoded.
  put(place, { headers, bytes }) {
    const url = URL.createObjectURL(new Blob([bytes], { type: headers.get("content-type") }));
    const image = new Image();
    image.src = url;
    this.pictures.set(place, { url, image });
    return url;
  }

  // The picture nearest to a place, undefined while there is none.
  nearest(place) {
    let best;
    for (const known of this.pictures.keys()) {
      if (best === undefined || Math.abs(known - place) < Math.abs(best - place)) best = known;
    }
    return this.pictures.get(best);
  }

  // Fetches what is missing, coarse first and nearest to `place()` first. `fetchPictures` takes ages
  // in years and gives an answer in parts; `onPicture` gets each place and address.
  async fetchAhead(place, fetchPictures, onPicture) {
    for (;;) {
      const places = this.next(place());
      if (!places.length) return;
      const response = await fetchPictures(places.map((each) => this.years(each).toFixed(4)));
      for await (const part of parts(response)) {
        const at = places.shift();
        onPicture(at, this.put(at, part));
      }
    }
  }

  // Places without a picture that are to be fetched next.
  next(place) {
    if (!this.continuous) return [];
    const all = Array.from({ length: this.last + 1 }, (_, each) => each);
    const missing = all.filter((each) => !this.pictures.has(each));
    const stride = STRIDES.find((step) => missing.some((each) => each % step === 0));
    return missing
      .filter((each) => each % stride === 0)
      .sort((one, other) => Math.abs(one - place) - Math.abs(other - place))
      .slice(0, AT_A_TIME);
  }

  close() {
    for (const { url } of this.pictures.values()) URL.revokeObjectURL(url);
    this.pictures.clear();
  }
}
