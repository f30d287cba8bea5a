// The pictures of one face through its years. Places are whole numbers: one for each anchor and
// STEPS - 1 between neighbours, so that anchors lie equally far apart, as in the filmstrip.

import { parts } from "./stream.js";

export const STEPS = 16;

// Between two anchors: the quarters first, then the eighths, then the sixteenths between them.
const PASSES = [
  { first: 4, step: 4, count: 3 },
  { first: 2, step: 4, count: 4 },
  { first: 1, step: 2, count: 8 },
];

export class Life {
  // `centres` are the anchors' ages in years, in order.
  constructor(centres, continuous) {
    this.centres = centres;
    this.continuous = continuous;
    this.pictures = new Map();
    const segments = continuous ? centres.length - 1 : 0;
    this.missing = PASSES.flatMap((pass, round) =>
      Array.from({ length: segments }, (_, segment) => ({ ...pass, round, segment })),
    );
    this.expected = centres.length + segments * (STEPS - 1);
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

  // Fetches what is missing, coarse first and nearest to `place()` first. `fetchFrames` takes
  // start, stop and frames and gives an answer in parts; `onPicture` is called for each.
  async fetchAhead(place, fetchFrames, onPicture) {
    while (this.missing.length) {
      const span = this.nextSpan(place());
      const from = span.segment * STEPS + span.first;
      const response = await fetchFrames({
        start: this.years(from).toFixed(4),
        stop: this.years(from + span.step * (span.count - 1)).toFixed(4),
        frames: span.count,
      });
      let at = from;
      for await (const part of parts(response)) {
        if (!this.pictures.has(at)) this.put(at, part);
        at += span.step;
        onPicture();
      }
      this.missing.splice(this.missing.indexOf(span), 1);
    }
  }

  nextSpan(place) {
    const distance = (span) => Math.abs((span.segment + 0.5) * STEPS - place);
    const order = (one, other) => one.round - other.round || distance(one) - distance(other);
    return [...this.missing].sort(order)[0];
  }

  close() {
    for (const { url } of this.pictures.values()) URL.revokeObjectURL(url);
    this.pictures.clear();
    this.missing = [];
  }
}
