import { framingNames } from '../../policy/http/body.ts';
import { chunkLineLimit, headLimit, lengthLimit, NotCanonical, textOf } from '../../policy/http/canonical.ts';
import { type Framing, readHeader } from '../../policy/http/parse.ts';

type Phase = 'end' | 'broken' | 'data' | 'size' | 'data-end' | 'trailers';

const lineFeed = 0x0a;
/** Of a chunk's line, what may be its begin. */
const sizeBegin = /^(?:[0-9A-Fa-f]{1,16}(?:;[\x20-\x7e\t\x80-\xff]*)?)?\r?$/;
const sizeLine = /^([0-9A-Fa-f]{1,16})(?:;[\x20-\x7e\t\x80-\xff]*)?\r\n$/;
const trailerBegin = /^[\x20-\x7e\t\x80-\xff]*\r?$/;
const trailerLine = /^([\x20-\x7e\t\x80-\xff]*)\r\n$/;

/**
 * Follows a body to its end, without looking at its data. It reads what policy/http/body.ts reads, which it is held
 * against; that one goes byte by byte, this one by lines and by whole pieces of data.
 */
export class BodyReader {
  #phase: Phase;
  /** Of the data. */
  #left = 0n;
  readonly #chunked: boolean;
  /** Of a line, what has come. */
  #begun = '';
  #trailers = 0;

  constructor(framing: Framing) {
    this.#chunked = framing.kind === 'chunked';
    this.#phase = framing.kind === 'chunked' ? 'size' : 'data';
    if (framing.kind === 'length') this.#left = framing.length;
    if (framing.kind === 'none' || (framing.kind === 'length' && framing.length === 0n)) this.#phase = 'end';
  }

  get ended(): boolean {
    return this.#phase === 'end';
  }

  get broken(): boolean {
    return this.#phase === 'broken';
  }

  /**
   * Reads on, as far as these bytes or the body go.
   * @returns How many of the bytes are the body's: all, unless it ended; where it is broken it says nothing.
   */
  read(bytes: Uint8Array): number {
    let at = 0;
    while (at < bytes.length && this.#phase !== 'end' && this.#phase !== 'broken') {
      if (this.#phase === 'data') {
        const taken = this.#left < BigInt(bytes.length - at) ? Number(this.#left) : bytes.length - at;
        this.#left -= BigInt(taken);
        at += taken;
        if (this.#left === 0n) this.#phase = this.#chunked ? 'data-end' : 'end';
      } else at = this.#readLine(bytes, at);
    }
    return at;
  }

  /** @returns Where the line ends, or the bytes do. */
  #readLine(bytes: Uint8Array, from: number): number {
    const room = this.#room() - this.#begun.length;
    const found = bytes.subarray(from, from + room).indexOf(lineFeed);
    const to = found < 0 ? Math.min(bytes.length, from + room) : from + found + 1;
    this.#begun += textOf(bytes.subarray(from, to));
    try {
      if (found < 0) this.#checkBegin(to - from === room);
      else this.#lineIs(this.#begun);
    } catch (error) {
      if (!(error instanceof NotCanonical)) throw error;
      this.#phase = 'broken';
    }
    return to;
  }

  /** How long the line may be, with its CR LF; one byte more where that is what makes it wrong. */
  #room(): number {
    if (this.#phase === 'trailers') return headLimit - this.#trailers + 1;
    return this.#phase === 'size' ? chunkLineLimit + 2 : 2;
  }

  #checkBegin(full: boolean): void {
    const begun = this.#begun;
    const fits =
      this.#phase === 'size'
        ? sizeBegin.test(begun) && begun.replace('\r', '').length <= chunkLineLimit
        : this.#phase === 'data-end'
          ? begun === '\r'
          : trailerBegin.test(begun);
    if (!fits || full) throw new NotCanonical('a line that is none of a body');
  }

  #lineIs(line: string): void {
    this.#begun = '';
    switch (this.#phase) {
      case 'data-end':
        if (line !== '\r\n') throw new NotCanonical('a chunk longer than its size');
        this.#phase = 'size';
        return;
      case 'size': {
        const [, digits] = sizeLine.exec(line) ?? [];
        if (digits === undefined) throw new NotCanonical('no chunk size');
        this.#left = BigInt(`0x${digits}`);
        if (this.#left > lengthLimit) throw new NotCanonical('a chunk that is too big');
        this.#phase = this.#left === 0n ? 'trailers' : 'data';
        return;
      }
      default: {
        this.#trailers += line.length;
        const [, trailer] = trailerLine.exec(line) ?? [];
        if (trailer === undefined || this.#trailers > headLimit) throw new NotCanonical('trailers that are none');
        if (trailer === '') this.#phase = 'end';
        else if (framingNames.has(readHeader(trailer)[0]))
          throw new NotCanonical('a trailer that would change the request');
      }
    }
  }
}
