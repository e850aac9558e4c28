import { HandshakeError } from './error.ts';

/** No message between two pods is near this long. Counted without the line feed. */
export const longestLine = 4096;

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

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
    let rest = chunk;
    for (let end = rest.indexOf(0x0a); end >= 0; end = rest.indexOf(0x0a)) {
      this.#take(rest.subarray(0, end));
      rest = rest.subarray(end + 1);
      yield this.#finish();
    }
    if (rest.length > 0) this.#take(rest);
  }

  #take(bytes: Uint8Array): void {
    this.#length += bytes.length;
    if (this.#length > this.#longest) throw new HandshakeError('bad-message', `a line of over ${this.#longest} bytes`);
    this.#partial.push(Buffer.from(bytes));
  }

  #finish(): string {
    const bytes = Buffer.concat(this.#partial);
    this.#partial = [];
    this.#length = 0;
    try {
      return utf8.decode(bytes);
    } catch (cause) {
      throw new HandshakeError('bad-message', 'a line that is not UTF-8', { cause });
    }
  }
}
