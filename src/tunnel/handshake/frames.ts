import { HandshakeError } from './error.ts';

/** Length, conversation, type. */
export const frameHeader = 7;
/** What a length of two bytes can say, and itself. */
const longestFrame = 2 + 0xffff;

/** Is given a frame of a node session: its body lies in `bytes` from `start` to `end`, and only for as long as the call takes. */
export type TakeFrame = (conversation: number, type: number, bytes: Buffer, start: number, end: number) => void;

/**
 * Cuts a byte stream into frames: length of what follows (two bytes), conversation (four), type (one), body. All numbers
 * most significant byte first.
 */
export class FrameReader {
  #bytes: Buffer = Buffer.alloc(0);
  #at = 0;

  /** @param chunk The reader's from here on. To be followed by {@link next} until there is none. */
  push(chunk: Uint8Array): void {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    this.#bytes = this.#at < this.#bytes.length ? Buffer.concat([this.#bytes.subarray(this.#at), bytes]) : bytes;
    this.#at = 0;
  }

  /**
   * Hands on one frame. @returns Whether there was a whole one.
   * @throws {HandshakeError} `bad-message`: a frame too short to be one; and what `take` throws.
   */
  next(take: TakeFrame): boolean {
    const [bytes, at] = [this.#bytes, this.#at];
    if (bytes.length - at < 2) return false;
    const end = at + 2 + bytes.readUInt16BE(at);
    if (end - at < frameHeader) throw new HandshakeError('bad-message', 'a frame too short to be one');
    if (end > bytes.length) return false;
    this.#at = end;
    take(bytes.readUInt32BE(at + 2), bytes.readUInt8(at + 6), bytes, at + frameHeader, end);
    return true;
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
