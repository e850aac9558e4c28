import { closeSync } from 'node:fs';
import koffi, { type KoffiFunc } from 'koffi';
import { errnoError } from './error.ts';
import { checked, raw } from './ffi/libc.ts';

/**
 * Netlink (RFC 3549): requests to the kernel as bytes, where a command line would show what must stay secret or where a
 * process a request would be too slow. Little-endian throughout, as on every machine that Myelin runs on.
 */

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;

const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const headerBytes = 16;

/** Flags of a request (linux/netlink.h). */
export const netlinkFlags = {
  request: 1,
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

const libc = koffi.load('libc.so.6');
const send = libc.func('intptr_t send(int fd, const void *bytes, size_t length, int flags)') as unknown as KoffiFunc<
  (fd: number, bytes: Uint8Array, length: number, flags: number) => number
>;
const receive = libc.func('intptr_t recv(int fd, void *bytes, size_t length, int flags)') as unknown as KoffiFunc<
  (fd: number, bytes: Uint8Array, length: number, flags: number) => number
>;

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
   * @returns The messages of the answer; none for a plain acknowledgement.
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
      checked(send(this.#fd, message, message.length, 0), operation, object);
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
      const length = checked(receive(this.#fd, this.#buffer, this.#buffer.length, 0), operation, object);
      for (let at = 0; at + headerBytes <= length; ) {
        const size = this.#buffer.readUInt32LE(at);
        const type = this.#buffer.readUInt16LE(at + 4);
        const sequence = this.#buffer.readUInt32LE(at + 8);
        const payload = Buffer.from(this.#buffer.subarray(at + headerBytes, at + size));
        at += align(size);
        // Left over from a request whose answer was given up on.
        if (sequence !== this.#sequence) continue;
        if (type === NLMSG_DONE) return messages;
        if (type === NLMSG_ERROR) {
          const error = payload.readInt32LE(0);
          if (error < 0) throw errnoError(-error, operation, object);
          return messages;
        }
        messages.push({ type, payload });
        const multipart = (this.#buffer.readUInt16LE(at - align(size) + 6) & 2) !== 0;
        if (!multipart && at >= length) return messages;
      }
    }
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
