import { type IpAddress, ipToBytes16 } from '../../model/address.ts';
import type { InboundSa, Lifetimes, OutboundSa, SaId, TrafficSelector, UnderlayAddress } from '../driver.ts';
import { TunnelError } from '../driver.ts';

/**
 * The engine's control protocol as native/protocol.h fixes it: this file has the layout, the requests and the framing;
 * messages.ts what the engine says.
 */

export const protocolVersion = 1;

export const messageType = {
  install: 1,
  remove: 2,
  movePeer: 3,
  list: 4,
  statistics: 5,
  fail: 6,
  shutdown: 7,
  release: 8,
  pathMtu: 9,
  keepalive: 10,
  keepSocket: 11,
  done: 64,
  sa: 65,
  counters: 66,
  hello: 128,
  acquire: 129,
  expiry: 130,
  unknownSpi: 131,
  drop: 132,
  moved: 133,
} as const;

/** Bytes of the packed structs, as the C compiler lays them out. */
export const layout = {
  header: 5,
  selector: 32,
  underlay: 18,
  lifetimes: 32,
  saId: 23,
  install: 166,
  sa: 173,
  counters: 80,
  detail: 32,
  hello: 36,
} as const;

const maximalNote = 1024;
/** The engine's longest messages are counters and notes: far below. More is garbage. */
const maximalMessage = 1 << 20;
/** Stands for the absence of a limit or a time. */
export const noLimit = 0xffff_ffff_ffff_ffffn;
const windowDefault = 4096;

/** Writes a struct field by field. */
class Writer {
  readonly bytes: Buffer;
  #at = 0;

  constructor(length: number) {
    this.bytes = Buffer.alloc(length);
  }

  u8(value: number): this {
    this.#at = this.bytes.writeUInt8(value, this.#at);
    return this;
  }

  u16(value: number): this {
    this.#at = this.bytes.writeUInt16LE(value, this.#at);
    return this;
  }

  u32(value: number): this {
    this.#at = this.bytes.writeUInt32LE(value, this.#at);
    return this;
  }

  u64(value: bigint): this {
    this.#at = this.bytes.writeBigUInt64LE(value, this.#at);
    return this;
  }

  raw(bytes: Uint8Array): this {
    this.bytes.set(bytes, this.#at);
    this.#at += bytes.length;
    return this;
  }

  skip(length: number): this {
    this.#at += length;
    return this;
  }

  selector(selector: TrafficSelector): this {
    return this.raw(ipToBytes16(selector.local)).raw(ipToBytes16(selector.remote));
  }

  underlay(peer: UnderlayAddress): this {
    return this.raw(ipToBytes16(peer.address)).u16(peer.port);
  }

  saId(sa: SaId): this {
    return this.u8(sa.direction === 'in' ? 0 : 1)
      .u32(sa.spi)
      .underlay(sa.peer);
  }

  lifetimes(lifetimes: Lifetimes): this {
    const limits = [lifetimes.softBytes, lifetimes.hardBytes, lifetimes.softPackets, lifetimes.hardPackets];
    for (const limit of limits) this.u64(limit === undefined ? noLimit : BigInt(limit));
    return this;
  }
}

/** A message of this type, its payload still to be written. */
function message(type: number, payload: number): Writer {
  return new Writer(layout.header + payload).u32(payload + 1).u8(type);
}

/**
 * @returns A message that holds the key: to be zeroed once it is written.
 * @throws {TunnelError} `InvalidSa` where the protocol cannot carry it; the engine judges the rest.
 */
export function encodeInstall(id: number, sa: InboundSa | OutboundSa): Buffer {
  const note = Buffer.from(sa.note, 'utf8');
  const [first, second] = sa.selectors;
  const refuse = (why: string) => {
    throw new TunnelError('InvalidSa', `SA ${sa.spi}: ${why}`, { data: { spi: sa.spi, direction: sa.direction } });
  };
  if (note.length > maximalNote) refuse(`the note has ${note.length} bytes, at most ${maximalNote} are kept`);
  if (sa.key.length !== 32 || sa.salt.length !== 4) refuse('the key has to have 32 bytes, the salt 4');
  if (first === undefined || sa.selectors.length > 2) return refuse('one or two selectors are wanted');
  if (!Number.isInteger(sa.spi) || sa.spi < 256 || sa.spi > 0xffff_ffff) refuse('the SPI is out of range');
  const window = sa.direction === 'in' ? powerOfTwo(sa.replayWindow ?? windowDefault) : 0;
  const writer = message(messageType.install, layout.install + note.length)
    .u32(id)
    .saId(sa)
    .u8(sa.selectors.length)
    .selector(first);
  if (second === undefined) writer.skip(layout.selector);
  else writer.selector(second);
  return writer.lifetimes(sa.lifetimes).u32(window).raw(sa.key).raw(sa.salt).u16(note.length).raw(note).bytes;
}

function powerOfTwo(packets: number): number {
  let window = 64;
  while (window < packets && window < 1 << 30) window *= 2;
  return window;
}

export function encodeRemove(id: number, sa: SaId): Buffer {
  return message(messageType.remove, 4 + layout.saId)
    .u32(id)
    .saId(sa).bytes;
}

export function encodeMovePeer(id: number, sa: SaId, peer: UnderlayAddress): Buffer {
  return message(messageType.movePeer, 4 + layout.saId + layout.underlay)
    .u32(id)
    .saId(sa)
    .underlay(peer).bytes;
}

/** @param after The serial behind which the listing goes on; 0n for its start. */
export function encodeList(id: number, after: bigint): Buffer {
  return message(messageType.list, 12).u32(id).u64(after).bytes;
}

export function encodeFail(id: number, pair: TrafficSelector): Buffer {
  return message(messageType.fail, 4 + layout.selector)
    .u32(id)
    .selector(pair).bytes;
}

export function encodeRelease(id: number, pair: TrafficSelector): Buffer {
  return message(messageType.release, 4 + layout.selector)
    .u32(id)
    .selector(pair).bytes;
}

/**
 * @param address Undefined: every address that has no word of its own.
 * @param mtu Of the underlay, bytes; 0: no limit but the device's.
 */
export function encodePathMtu(id: number, address: IpAddress | undefined, mtu: number): Buffer {
  const writer = message(messageType.pathMtu, 24).u32(id);
  return (address === undefined ? writer.skip(16) : writer.raw(ipToBytes16(address))).u32(mtu).bytes;
}

export function encodeKeepalive(id: number, peer: UnderlayAddress): Buffer {
  return message(messageType.keepalive, 4 + layout.underlay)
    .u32(id)
    .underlay(peer).bytes;
}

/** @param keep Whether a descriptor comes with the message, to be kept; else the one that was kept is closed. */
export function encodeKeepSocket(id: number, keep: boolean): Buffer {
  return message(messageType.keepSocket, 5)
    .u32(id)
    .u8(keep ? 1 : 0).bytes;
}

export function encodeStatistics(id: number): Buffer {
  return message(messageType.statistics, 4).u32(id).bytes;
}

export function encodeShutdown(id: number): Buffer {
  return message(messageType.shutdown, 4).u32(id).bytes;
}

export interface Frame {
  readonly type: number;
  readonly payload: Buffer;
}

/** Cuts the stream into messages. */
export class FrameReader {
  #rest: Buffer = Buffer.alloc(0);

  /**
   * @returns The messages that are complete with this chunk.
   * @throws {TunnelError} `DriverProtocol` where a length is impossible; the stream is then of no use any more.
   */
  push(chunk: Buffer): Frame[] {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const frames: Frame[] = [];
    while (this.#rest.length >= layout.header) {
      const length = this.#rest.readUInt32LE(0);
      if (length < 1 || length > maximalMessage)
        throw new TunnelError('DriverProtocol', `the engine announced a message of ${length} bytes`);
      if (this.#rest.length < 4 + length) break;
      frames.push({ type: this.#rest.readUInt8(4), payload: this.#rest.subarray(layout.header, 4 + length) });
      this.#rest = this.#rest.subarray(4 + length);
    }
    return frames;
  }
}
