import type { Socket } from 'node:net';
import { raw } from './ffi/libc.ts';
import { descriptorOf } from './sockets.ts';

const IPPROTO_TCP = 6;
const TCP_SAVED_SYN = 28;
/** Ethernet, IPv6 and TCP headers at their longest, and extension headers besides. */
const longest = 512;

/**
 * The packet that opened an accepted connection (tcp(7), TCP_SAVED_SYN), as its listening socket had the kernel keep it:
 * with TCP_SAVE_SYN = 2 from its Ethernet header on. The kernel gives it once.
 * @returns Its headers; undefined where none were kept (asked before, or the SYN was answered by a cookie).
 */
export function savedSyn(socket: Socket): Uint8Array | undefined {
  const fd = descriptorOf(socket);
  if (fd === undefined) return undefined;
  const bytes = new Uint8Array(longest);
  const length = Uint32Array.of(longest);
  const result = raw.getsockopt(fd, IPPROTO_TCP, TCP_SAVED_SYN, bytes, new Uint8Array(length.buffer));
  // It fails where the headers are longer than any, or where a listening socket of another kind accepted it.
  if (result < 0) return undefined;
  const [kept = 0] = length;
  return kept === 0 ? undefined : bytes.subarray(0, kept);
}
