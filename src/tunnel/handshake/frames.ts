import { HandshakeError } from './error.ts';

/** Length, conversation, type. */
const frameHeader = 7;
/** What a length of two bytes can say, and itself. */
const longestFrame = 2 + 0xffff;
const none = Buffer.alloc(0);

/** Is given a frame of a node session: its body lies in `bytes` from `start` to `end`, and only for as long as the call takes. */
export type TakeFrame = (conversation: number, type: number, bytes: Buffer, start: number, end: number) => void;

/**
 * Cuts a byte stream into frames: length of what follows (two bytes), conversation (four), type (one), body. All numbers
 * most significant byte first.
 */
export class FrameReader {
  #bytes: Buffer = none;
  #at = 0;
  /** What came since, to be joined once the next frame is whole: who sends byte by byte costs no more than others. */
  #parts: Buffer[] = [];
  /** Bytes that no frame was made of yet, and how many the next one takes, as far as is known. */
  #left = 0;
  #needed = 2;

  /** @param chunk The reader's from here on. To be followed by {@link next} until there is none. */
  push(chunk: Uint8Array): void {
    this.#parts.push(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength));
    this.#left += chunk.byteLength;
  }

  /**
   * Hands on one frame. @returns Whether there was a whole one.
   * @throws {HandshakeError} `bad-message`: a frame too short to be one; and what `take` throws.
   */
  next(take: TakeFrame): boolean {
    if (this.#left < this.#needed) return false;
    if (this.#parts.length > 0) this.#join();
    const [bytes, at] = [this.#bytes, this.#at];
    const length = 2 + bytes.readUInt16BE(at);
    if (length < frameHeader) throw new HandshakeError('bad-message', 'a frame too short to be one');
    if (this.#left < length) {
      this.#needed = length;
      return false;
    }
    this.#left -= length;
    this.#needed = 2;
    this.#at = at + length;
    if (this.#left === 0) this.#bytes = none;
    take(bytes.readUInt32BE(at + 2), bytes.readUInt8(at + 6), bytes, at + frameHeader, at + length);
    return true;
  }

  #join(): void {
    const rest = this.#bytes.subarray(this.#at);
    const [first] = this.#parts;
    const isAlone = rest.length === 0 && this.#parts.length === 1 && first !== undefined;
    this.#bytes = isAlone ? first : Buffer.concat([rest, ...this.#parts]);
    this.#parts = [];
    this.#at = 0;
  }
}

/** What waits to be written in one piece: a thousand pairs cost a few TLS records. */
export class FrameWriter {
  /** Grows to what is said in one turn, and stays. */
  #bytes = Buffer.alloc(0);
  #length = 0;

  /** @param message Type and body (pair-messages.ts), a string of bytes. */
  add(conversation: number, message: string): void {
    const whole = frameHeader - 1 + message.length;
    if (whole > longestFrame) throw new RangeError(`a frame of ${whole} bytes`);
    this.#reserve(whole);
    let at = this.#bytes.writeUInt16BE(whole - 2, this.#length);
    at = this.#bytes.writeUInt32BE(conversation, at);
    this.#length = at + this.#bytes.write(message, at, 'latin1');
  }

  /** @returns What was added since, copied; undefined where nothing was. */
  take(): Uint8Array | undefined {
    if (this.#length === 0) return undefined;
    const taken = Buffer.from(this.#bytes.subarray(0, this.#length));
    this.#length = 0;
    return taken;
  }

  #reserve(more: number): void {
    if (this.#length + more <= this.#bytes.length) return;
    const grown = Buffer.alloc(Math.max(4096, 2 * (this.#length + more)));
    this.#bytes.copy(grown, 0, 0, this.#length);
    this.#bytes = grown;
  }
}
