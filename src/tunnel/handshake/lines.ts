import { HandshakeError } from './error.ts';

/** No message of the protocol is near this long. Counted without the line feed. */
export const longestLine = 4096;
/** A peer that is ahead by more lines than this does not follow the protocol: each message answers one. */
const mostPending = 2;

/**
 * Cuts a byte stream into lines of UTF-8 text, each ended by one line feed. Pure; holds at most one line's bytes and
 * two lines.
 */
export class LineReader {
  readonly #lines: string[] = [];
  #partial: Buffer[] = [];
  #length = 0;

  /** @throws {HandshakeError} `bad-message`: a line too long, not UTF-8, or more lines than anybody may be ahead. */
  push(chunk: Uint8Array): void {
    let rest = chunk;
    for (let end = rest.indexOf(0x0a); end >= 0; end = rest.indexOf(0x0a)) {
      this.#take(rest.subarray(0, end));
      this.#finish();
      rest = rest.subarray(end + 1);
    }
    if (rest.length > 0) this.#take(rest);
  }

  /** The oldest line that has not been taken, or undefined. */
  shift(): string | undefined {
    return this.#lines.shift();
  }

  #take(bytes: Uint8Array): void {
    this.#length += bytes.length;
    if (this.#length > longestLine) throw new HandshakeError('bad-message', `a line of over ${longestLine} bytes`);
    this.#partial.push(Buffer.from(bytes));
  }

  #finish(): void {
    if (this.#lines.length >= mostPending) throw new HandshakeError('bad-message', 'more lines than were asked for');
    const bytes = Buffer.concat(this.#partial);
    this.#partial = [];
    this.#length = 0;
    try {
      this.#lines.push(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes));
    } catch (cause) {
      throw new HandshakeError('bad-message', 'a line that is not UTF-8', { cause });
    }
  }
}
