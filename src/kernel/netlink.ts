import { closeSync } from 'node:fs';
import { node } from 'koffi';
import { errnoError, errnoName } from './error.ts';
import { checked, lastErrno, raw } from './ffi/libc.ts';

/**
 * Netlink (RFC 3549): requests to the kernel as bytes, where a command line would show what must stay secret or where a
 * process a request would be too slow. Little-endian throughout, as on every machine that Myelin runs on.
 */

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const SOCK_NONBLOCK = 0o4000;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;

const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const headerBytes = 16;

/** Flags of a request (linux/netlink.h). */
export const netlinkFlags = {
  request: 1,
  multipart: 2,
  ack: 4,
  dump: 0x300,
  replace: 0x100,
  exclusive: 0x200,
  create: 0x400,
} as const;

export interface NetlinkMessage {
  readonly type: number;
  /** After the header: the family's own struct, then attributes. */
  readonly payload: Buffer;
}

/** One netlink socket of this process's network namespace. Requests are synchronous: the kernel answers within the call. */
export class NetlinkSocket {
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(64 * 1024);
  #sequence = 0;

  /**
   * @param protocol Such as 6 for NETLINK_XFRM (linux/netlink.h).
   * @throws {KernelError} `Errno`
   */
  constructor(protocol: number) {
    this.#fd = checked(
      raw.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol),
      'open a netlink socket',
      `protocol ${protocol}`,
    );
    // An acknowledgement then quotes the header only: no key comes back to lie about in a buffer.
    raw.setsockopt(this.#fd, SOL_NETLINK, NETLINK_CAP_ACK, Uint8Array.of(1, 0, 0, 0), 4);
  }

  /**
   * Sends one request and waits for the kernel's answer.
   * @param object What it is about, for the error.
   * @returns The messages of the answer; none for a plain acknowledgement. No other copy of them is left in this process:
   *   where they hold secrets, wipe them.
   * @throws {KernelError} `Errno`
   */
  request(type: number, flags: number, payload: Uint8Array, operation: string, object: string): NetlinkMessage[] {
    const message = Buffer.alloc(headerBytes + payload.length);
    message.writeUInt32LE(message.length, 0);
    message.writeUInt16LE(type, 4);
    message.writeUInt16LE(flags | netlinkFlags.request, 6);
    message.writeUInt32LE(++this.#sequence, 8);
    message.set(payload, headerBytes);
    try {
      checked(raw.send(this.#fd, message, message.length, 0), operation, object);
    } finally {
      message.fill(0);
    }
    return this.#answer(operation, object);
  }

  close(): void {
    closeSync(this.#fd);
  }

  #answer(operation: string, object: string): NetlinkMessage[] {
    const messages: NetlinkMessage[] = [];
    for (;;) {
      const length = checked(raw.recv(this.#fd, this.#buffer, this.#buffer.length, 0), operation, object);
      const status = this.#take(length, messages);
      this.#buffer.fill(0, 0, length);
      if (status === undefined) continue;
      if (status < 0) throw errnoError(-status, operation, object);
      return messages;
    }
  }

  /** @returns The status that ends the answer, or undefined where more of it is to come. */
  #take(length: number, messages: NetlinkMessage[]): number | undefined {
    let whole = false;
    for (const { type, flags, sequence, payload } of split(this.#buffer.subarray(0, length))) {
      // Left over from a request whose answer was given up on.
      if (sequence !== this.#sequence) continue;
      if (type === NLMSG_DONE) return 0;
      if (type === NLMSG_ERROR) return payload.readInt32LE(0);
      messages.push({ type, payload: Buffer.from(payload) });
      whole = (flags & netlinkFlags.multipart) === 0;
    }
    return whole ? 0 : undefined;
  }
}

/** What the kernel says unasked to the multicast groups of a protocol, in this process's network namespace. */
export class NetlinkEvents {
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(64 * 1024);
  readonly #deps: NetlinkListener;
  #poll: node.PollHandle | undefined;

  /**
   * @param groups A bit for each group: bit n−1 for the group that linux/*.h numbers n.
   * @throws {KernelError} `Errno`
   */
  constructor(protocol: number, groups: number, listener: NetlinkListener) {
    this.#deps = listener;
    const name = `protocol ${protocol}, groups 0x${groups.toString(16)}`;
    const type = SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK;
    this.#fd = checked(raw.socket(AF_NETLINK, type, protocol), 'open a netlink socket', name);
    // struct sockaddr_nl: family 0, port 4 (the kernel chooses), groups 8
    const address = new Uint8Array(12);
    const view = new DataView(address.buffer);
    view.setUint16(0, AF_NETLINK, true);
    view.setUint32(8, groups, true);
    try {
      checked(raw.bind(this.#fd, address, address.length), 'listen to the kernel', name);
      this.#poll = node.poll(this.#fd, { readable: true }, () => this.#read());
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
  }

  close(): void {
    if (this.#poll === undefined) return;
    this.#poll.close();
    this.#poll = undefined;
    closeSync(this.#fd);
  }

  #read(): void {
    while (this.#poll !== undefined) {
      const length = raw.recv(this.#fd, this.#buffer, this.#buffer.length, 0);
      if (length >= 0) {
        for (const { type, payload } of split(this.#buffer.subarray(0, length)))
          this.#deps.onMessage({ type, payload });
        continue;
      }
      // ENOBUFS: more came than there was room for, and what follows is whole again.
      if (errnoName(lastErrno()) !== 'ENOBUFS') return;
      this.#deps.onLoss();
    }
  }
}

export interface NetlinkListener {
  /** The payload is valid until it returns. */
  readonly onMessage: (message: NetlinkMessage) => void;
  /** Messages were lost: what they would have said has to be looked up. */
  readonly onLoss: () => void;
}

/** The messages of one datagram (struct nlmsghdr: length 0, type 4, flags 6, sequence 8); payloads are parts of it. */
function* split(bytes: Buffer): Iterable<NetlinkMessage & { readonly flags: number; readonly sequence: number }> {
  for (let at = 0; at + headerBytes <= bytes.length; ) {
    const size = bytes.readUInt32LE(at);
    if (size < headerBytes) return;
    yield {
      type: bytes.readUInt16LE(at + 4),
      flags: bytes.readUInt16LE(at + 6),
      sequence: bytes.readUInt32LE(at + 8),
      payload: bytes.subarray(at + headerBytes, at + size),
    };
    at += align(size);
  }
}

/** One attribute: length, type, value, padding (linux/netlink.h nlattr). */
export function attribute(type: number, value: Uint8Array): Buffer {
  const bytes = Buffer.alloc(align(4 + value.length));
  bytes.writeUInt16LE(4 + value.length, 0);
  bytes.writeUInt16LE(type, 2);
  bytes.set(value, 4);
  return bytes;
}

/** @returns Values by type; of a type that stands twice, the last. */
export function attributes(bytes: Buffer): Map<number, Buffer> {
  const found = new Map<number, Buffer>();
  for (let at = 0; at + 4 <= bytes.length; ) {
    const length = bytes.readUInt16LE(at);
    if (length < 4) break;
    found.set(bytes.readUInt16LE(at + 2), bytes.subarray(at + 4, at + length));
    at += align(length);
  }
  return found;
}

function align(length: number): number {
  return (length + 3) & ~3;
}
