import { closeSync, constants, openSync } from 'node:fs';
import { errnoError, KernelError } from './error.ts';
import { lastErrno, raw } from './ffi/libc.ts';

// include/uapi/linux/if_tun.h
const TUNSETIFF = 0x4004_54ca;
const TUNSETPERSIST = 0x4004_54cb;
const TUNSETOFFLOAD = 0x4004_54d0;
const TUNSETSTEERINGEBPF = 0x8004_54e0;
const flags = { tun: 0x0001, noPi: 0x1000, vnetHeader: 0x4000, multiQueue: 0x0100 } as const;
const nameSize = 16;
const ifreqSize = 40;

/** What the reader of a TUN device must be able to take: unfinished checksums, and packets larger than the MTU. */
export const tunOffloads = { checksum: 0x01, tso4: 0x02, tso6: 0x04, uso4: 0x20, uso6: 0x40 } as const;

// USO exists since Linux 6.2 and its two flags only come together; TSO needs checksums.
const offloadLadder = [
  tunOffloads.checksum | tunOffloads.tso4 | tunOffloads.tso6 | tunOffloads.uso4 | tunOffloads.uso6,
  tunOffloads.checksum | tunOffloads.tso4 | tunOffloads.tso6,
  tunOffloads.checksum,
  0,
] as const;

export interface TunOptions {
  /** At most 15 bytes. */
  readonly name: string;
  /** 1 by default. */
  readonly queues?: number;
  /** A device is multi-queue for life, whatever it has of them. True by default where there are several. */
  readonly multiQueue?: boolean;
  /** Each packet is preceded by struct virtio_net_hdr (10 bytes); without, there are no offloads. True by default. */
  readonly vnetHeader?: boolean;
  /** The device stays when the last descriptor is closed. False by default. */
  readonly persist?: boolean;
}

export interface Tun {
  readonly name: string;
  /** One per queue; the caller closes them or passes them on. */
  readonly fds: readonly number[];
  /** Bits of `tunOffloads` that the kernel took: the most that it offers. */
  readonly offloads: number;
}

/**
 * Makes (or takes over, where it persists) a TUN device in this process's network namespace.
 * @throws {KernelError} `Missing` where there is no /dev/net/tun; `Errno` (EPERM; EINVAL where it is there and multi-queue, or
 * is not, against what is wanted; EBUSY where another process holds it: of a multi-queue device it only gets more queues)
 */
export function openTun(options: TunOptions): Tun {
  const queues = options.queues ?? 1;
  const fds: number[] = [];
  try {
    for (let queue = 0; queue < queues; queue++) fds.push(openQueue(options));
    const [first = -1] = fds;
    if (raw.ioctlNumber(first, TUNSETPERSIST, options.persist === true ? 1 : 0) < 0)
      throw errnoError(lastErrno(), 'set persistence', options.name);
    const offloads = (options.vnetHeader ?? true) ? setOffloads(first, options.name) : 0;
    return { name: options.name, fds, offloads };
  } catch (error) {
    for (const fd of fds) closeSync(fd);
    throw error;
  }
}

/**
 * Has a program of type socket filter choose the queue of a multi-queue device that a packet comes out of; it sees the packet
 * from its IP header on, and what it says counts modulo the number of queues.
 * @param fd One of the device's queues.
 * @throws {KernelError} `Errno`
 */
export function steerTun(fd: number, programFd: number, name: string): void {
  const argument = new Uint8Array(Int32Array.of(programFd).buffer);
  if (raw.ioctl(fd, TUNSETSTEERINGEBPF, argument) < 0) throw errnoError(lastErrno(), 'steer the TUN device', name);
}

function openQueue(options: TunOptions): number {
  const fd = openDevice();
  const request = new Uint8Array(ifreqSize);
  const name = new TextEncoder().encode(options.name);
  if (name.length >= nameSize) throw errnoError(36, 'make the TUN device', options.name);
  request.set(name);
  const wanted =
    flags.tun |
    flags.noPi |
    ((options.vnetHeader ?? true) ? flags.vnetHeader : 0) |
    ((options.multiQueue ?? (options.queues ?? 1) > 1) ? flags.multiQueue : 0);
  new DataView(request.buffer).setUint16(nameSize, wanted, true);
  if (raw.ioctl(fd, TUNSETIFF, request) < 0) {
    const error = errnoError(lastErrno(), 'make the TUN device', options.name);
    closeSync(fd);
    throw error;
  }
  return fd;
}

function openDevice(): number {
  const device = '/dev/net/tun';
  try {
    return openSync(device, constants.O_RDWR | constants.O_NONBLOCK);
  } catch (cause) {
    throw new KernelError(
      'Missing',
      `${device} cannot be opened: load the kernel module tun, and run as root (in a container, pass the device in)`,
      { operation: 'open', object: device },
      cause,
    );
  }
}

function setOffloads(fd: number, name: string): number {
  for (const offloads of offloadLadder) if (raw.ioctlNumber(fd, TUNSETOFFLOAD, offloads) === 0) return offloads;
  throw errnoError(lastErrno(), 'set offloads', name);
}
