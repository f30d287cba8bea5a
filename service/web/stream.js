// A multipart/mixed answer, taken apart while it arrives.

import { Problem } from "./problem.js";

const HEADERS_END = "\r\n\r\n";

// Each part as { headers: Map of lower-case names, bytes: Uint8Array }, as soon as it is whole.
// Every part must tell its Content-Length. An answer that ends early raises `broken_off`.
export async function* parts(response) {
  const boundary = /boundary="?([^";]+)/.exec(response.headers.get("Content-Type") ?? "")?.[1];
  if (!boundary) throw new Problem("broken_off");
  const bytes = new Bytes(response.body.getReader());
  try {
    let opening = `--${boundary}`;
    for (;;) {
      await bytes.skip(opening);
      const next = await bytes.text(2);
      if (next === "--") {
        await bytes.rest();
        return;
      }
      if (next !== "\r\n") throw new Problem("broken_off");
      const headers = headersOf(await bytes.until(HEADERS_END));
      const length = Number(headers.get("content-length") ?? NaN);
      if (!Number.isInteger(length)) throw new Problem("broken_off");
      yield { headers, bytes: await bytes.take(length) };
      opening = `\r\n--${boundary}`;
    }
  } finally {
    bytes.close();
  }
}

function headersOf(text) {
  const lines = text.split("\r\n").map((line) => line.split(/:\s*(.*)/s));
  return new Map(lines.map(([name, value]) => [name.toLowerCase(), value]));
}

class Bytes {
  constructor(reader) {
    this.reader = reader;
    this.held = new Uint8Array();
    this.decoder = new TextDecoder("latin1");
  }

  async more() {
    const { done, value } = await this.reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      return { done: true };
    });
    if (done) throw new Problem("broken_off");
    const joined = new Uint8Array(this.held.length + value.length);
    joined.set(this.held);
    joined.set(value, this.held.length);
    this.held = joined;
  }

  async take(count) {
    while (this.held.length < count) await this.more();
    const taken = this.held.slice(0, count);
    this.held = this.held.subarray(count);
    return taken;
  }

  async text(count) {
    return this.decoder.decode(await this.take(count));
  }

  async skip(expected) {
    if ((await this.text(expected.length)) !== expected) throw new Problem("broken_off");
  }

  // The text before `mark`; the mark is taken too.
  async until(mark) {
    for (;;) {
      const place = this.decoder.decode(this.held).indexOf(mark);
      if (place >= 0) return (await this.text(place + mark.length)).slice(0, place);
      await this.more();
    }
  }

  // Reads to the end, so that the connection can be used again.
  async rest() {
    while (!(await this.reader.read()).done);
  }

  close() {
    this.reader.cancel().catch(() => null);
  }
}
