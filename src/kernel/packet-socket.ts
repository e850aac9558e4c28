import { closeSync } from 'node:fs';
import koffi, { type KoffiFunc } from 'koffi';
import { checked, deviceIndex, raw } from './ffi/libc.ts';

const AF_PACKET = 17;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;

const libc = koffi.load('libc.so.6');
const send = libc.func('intptr_t send(int fd, const void *bytes, size_t length, int flags)') as unknown as KoffiFunc<
  (fd: number, bytes: Uint8Array, length: number, flags: number) => number
>;

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
      // struct sockaddr_ll: family 0, protocol 2, ifindex 4
      const address = new Uint8Array(20);
      const view = new DataView(address.buffer);
      view.setUint16(0, AF_PACKET, true);
      view.setInt32(4, deviceIndex(device), true);
      checked(raw.bind(this.#fd, address, address.length), 'bind', device);
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
    checked(send(this.#fd, frame, frame.length, 0), 'send a frame', this.#device);
  }

  close(): void {
    closeSync(this.#fd);
  }
}
