import { closeSync } from 'node:fs';
import { node } from 'koffi';
import { checked, deviceIndex, raw } from './ffi/libc.ts';

const AF_PACKET = 17;
const SOCK_DGRAM = 2;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const SOCK_NONBLOCK = 0o4000;
/** Of each packet, and packets read before other work gets its turn. */
const tapBytes = 128;
const tapBatch = 512;

/** Puts whole frames onto a device of this process's network namespace, as packet(7) does: for tests and attacks. */
export class PacketSocket {
  readonly #fd: number;
  readonly #device: string;

  /** @throws {KernelError} `Errno` (EPERM without CAP_NET_RAW, ENODEV) */
  constructor(device: string) {
    this.#device = device;
    // Protocol 0: nothing is received, so nothing queues up.
    this.#fd = checked(raw.socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), 'open a packet socket', device);
    try {
      bindTo(this.#fd, device, 0);
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
  }

  /**
   * @param frame From the Ethernet header on, without the frame check sequence.
   * @throws {KernelError} `Errno` (EMSGSIZE, ENETDOWN)
   */
  send(frame: Uint8Array): void {
    checked(raw.send(this.#fd, frame, frame.length, 0), 'send a frame', this.#device);
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** Shows what comes in by a device of this process's network namespace, whoever it is for: the IP packets' first bytes. */
export class PacketTap {
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(tapBytes);
  readonly #onPacket: (bytes: Buffer) => void;
  #poll: node.PollHandle | undefined;

  /**
   * @param protocol EtherType.
   * @param onPacket From the IP header on; the bytes are valid until it returns. At a flood some are not shown.
   * @throws {KernelError} `Errno` (EPERM without CAP_NET_RAW, ENODEV)
   */
  constructor(device: string, protocol: 0x0800 | 0x86dd, onPacket: (bytes: Buffer) => void) {
    this.#onPacket = onPacket;
    // Protocol 0 until it is bound: nothing of other devices.
    const type = SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
    this.#fd = checked(raw.socket(AF_PACKET, type, 0), 'open a packet socket', device);
    try {
      bindTo(this.#fd, device, protocol);
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
    for (let i = 0; i < tapBatch && this.#poll !== undefined; i++) {
      const length = raw.recv(this.#fd, this.#buffer, this.#buffer.length, 0);
      if (length < 0) return;
      this.#onPacket(this.#buffer.subarray(0, length));
    }
  }
}

/** struct sockaddr_ll: family 0, protocol 2 (network order), ifindex 4 */
function bindTo(fd: number, device: string, protocol: number): void {
  const address = new Uint8Array(20);
  const view = new DataView(address.buffer);
  view.setUint16(0, AF_PACKET, true);
  view.setUint16(2, protocol);
  view.setInt32(4, deviceIndex(device), true);
  checked(raw.bind(fd, address, address.length), 'bind', device);
}
