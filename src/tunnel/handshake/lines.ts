import { isUtf8 } from 'node:buffer';
import { HandshakeError } from './error.ts';

/** No message between two pods is near this long. Counted without the line feed. */
export const longestLine = 4096;

/** Cuts a byte stream into lines of UTF-8 text, each ended by one line feed. Pure; holds at most one line's bytes. */
export class LineReader {
  readonly #longest: number;
  #partial: Buffer[] = [];
  #length = 0;

  constructor(longest: number = longestLine) {
    this.#longest = longest;
  }

  /** @returns The lines that the chunk completes. @throws {HandshakeError} `bad-message`: a line too long, or not UTF-8. */
  *push(chunk: Uint8Array): Generator<string> {
    let rest = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    for (let end = rest.indexOf(0x0a); end >= 0; end = rest.indexOf(0x0a)) {
      const line = this.#finish(rest.subarray(0, end));
      rest = rest.subarray(end + 1);
      yield line;
    }
    if (rest.length === 0) return;
    this.#grow(rest.length);
    // The chunk is its sender's to use again.
    this.#partial.push(Buffer.from(rest));
  }

  #grow(bytes: number): void {
    this.#length += bytes;
    if (this.#length > this.#longest) throw new HandshakeError('bad-message', `a line of over ${this.#longest} bytes`);
  }

  #finish(last: Buffer): string {
    this.#grow(last.length);
    const bytes = this.#partial.length === 0 ? last : Buffer.concat([...this.#partial, last]);
    this.#partial = [];
    this.#length = 0;
    if (!isUtf8(bytes)) throw new HandshakeError('bad-message', 'a line that is not UTF-8');
    return bytes.toString('utf8');
  }
}
