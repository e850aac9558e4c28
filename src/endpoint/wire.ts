import { isUtf8 } from 'node:buffer';
import type { CniErrorBody } from './cni/error.ts';

/**
 * The plugin's and the agent's conversation on cni.sock: one request, one reply, each a 4-byte big-endian length and
 * that many bytes of JSON.
 */
export type Reply = { readonly result: unknown } | { readonly error: CniErrorBody };

/** Where the agent listens unless the configuration's `socket` says otherwise. */
export const defaultSocket = '/run/myelin/cni.sock';
/** The plugin's standard input, in bytes. */
export const maxInputBytes = 1024 * 1024;
/** A request: that, and the environment. */
export const maxRequestBytes = maxInputBytes + 64 * 1024;

export function encodeFrame(message: unknown): Buffer {
  const body = Buffer.from(JSON.stringify(message), 'utf8');
  const frame = Buffer.allocUnsafe(4 + body.length);
  frame.writeUInt32BE(body.length, 0);
  body.copy(frame, 4);
  return frame;
}

/**
 * Collects one frame out of a stream's chunks.
 * A malformed frame is an exception out of {@link push}, whose message says what was wrong.
 */
export class FrameReader {
  readonly #limit: number;
  #chunks: Buffer[] = [];
  #size = 0;
  /** Of the body; -1 until its four bytes are there. */
  #length = -1;

  /** @param limit Largest body, in bytes; nothing larger is ever buffered. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /**
   * @returns The decoded message once it is complete, in an object because `null` is a message too.
   * @throws {RangeError} too long, or followed by more. @throws {SyntaxError} not UTF-8, or not JSON.
   */
  push(chunk: Buffer): { readonly message: unknown } | undefined {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    if (this.#size < 4) return undefined;
    if (this.#length < 0) this.#length = this.#joined().readUInt32BE(0);
    if (this.#length > this.#limit)
      throw new RangeError(`a message of ${this.#length} bytes, the limit is ${this.#limit}`);
    if (this.#size < 4 + this.#length) return undefined;
    if (this.#size > 4 + this.#length) throw new RangeError('bytes after the message');
    const body = this.#joined().subarray(4);
    if (!isUtf8(body)) throw new SyntaxError('the message is not UTF-8');
    return { message: JSON.parse(body.toString('utf8')) };
  }

  #joined(): Buffer {
    const joined = Buffer.concat(this.#chunks);
    this.#chunks = [joined];
    return joined;
  }
}
