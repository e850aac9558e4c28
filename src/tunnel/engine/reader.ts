import { type IpAddress, ipFromBytes } from '../../model/address.ts';
import type { Lifetimes, SaId, TrafficSelector, UnderlayAddress } from '../driver.ts';
import { noLimit } from './protocol.ts';

/** Reads a struct field by field. Beyond the end every method throws a RangeError. */
export class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get rest(): number {
    return this.#bytes.length - this.#at;
  }

  u8(): number {
    return this.#bytes.readUInt8(this.#advance(1));
  }

  u16(): number {
    return this.#bytes.readUInt16LE(this.#advance(2));
  }

  u32(): number {
    return this.#bytes.readUInt32LE(this.#advance(4));
  }

  u64(): bigint {
    return this.#bytes.readBigUInt64LE(this.#advance(8));
  }

  /** A counter; beyond 2⁵³ it loses its last digits. */
  count(): number {
    return Number(this.u64());
  }

  /** A limit, or undefined for none. */
  limit(): number | undefined {
    const value = this.u64();
    return value === noLimit ? undefined : Number(value);
  }

  take(length: number): Buffer {
    const start = this.#advance(length);
    if (this.#at > this.#bytes.length) throw new RangeError('beyond the end of the message');
    return this.#bytes.subarray(start, this.#at);
  }

  /** Text padded with zeros. */
  text(length: number): string {
    const bytes = this.take(length);
    const end = bytes.indexOf(0);
    return bytes.toString('utf8', 0, end < 0 ? length : end);
  }

  ip(): IpAddress {
    return ipFromBytes(this.take(16));
  }

  selector(): TrafficSelector {
    return { local: this.ip(), remote: this.ip() };
  }

  underlay(): UnderlayAddress {
    return { address: this.ip(), port: this.u16() };
  }

  saId(): SaId {
    const direction = this.u8();
    if (direction > 1) throw new RangeError(`no direction ${direction}`);
    return { direction: direction === 0 ? 'in' : 'out', spi: this.u32(), peer: this.underlay() };
  }

  lifetimes(): Lifetimes {
    const softBytes = this.limit();
    const hardBytes = this.limit();
    const softPackets = this.limit();
    const hardPackets = this.limit();
    return {
      ...(softBytes === undefined ? {} : { softBytes }),
      ...(hardBytes === undefined ? {} : { hardBytes }),
      ...(softPackets === undefined ? {} : { softPackets }),
      ...(hardPackets === undefined ? {} : { hardPackets }),
    };
  }

  #advance(length: number): number {
    const at = this.#at;
    this.#at += length;
    return at;
  }
}
