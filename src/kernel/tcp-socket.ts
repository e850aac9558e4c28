import type { Socket } from 'node:net';
import { raw } from './ffi/libc.ts';
import { descriptorOf } from './sockets.ts';

const SOL_SOCKET = 1;
const SO_LINGER = 13;

/** struct linger: closing resets, or is an orderly end whose words still arrive. */
const abortive = Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0);
const orderly = new Uint8Array(8);

function setLinger(socket: Socket, value: Uint8Array): void {
  const fd = descriptorOf(socket);
  // Should it fail, the end is of the other kind, which is an end too.
  if (fd !== undefined) raw.setsockopt(fd, SOL_SOCKET, SO_LINGER, value, value.length);
}

/**
 * Has the kernel reset a connection when this process dies: what it has said so far must not pass for all. From the
 * orderly end of what is said here on, all of that arrives.
 * @param socket Connected, and not to be wrapped into another: `endOrderly` first.
 */
export function resetOnDeath(socket: Socket): void {
  setLinger(socket, abortive);
  socket.once('finish', () => setLinger(socket, orderly));
}

/** Takes `resetOnDeath` back. */
export function endOrderly(socket: Socket): void {
  setLinger(socket, orderly);
}

/**
 * Closes a connection by a reset, at once, whatever is still to be written. (Node's own `resetAndDestroy` loses the
 * descriptor where the socket is about to shut down: uv_tcp_close_reset refuses then; and it waits for one that connects.)
 */
export function resetSocket(socket: Socket): void {
  if (socket.destroyed) return;
  setLinger(socket, abortive);
  socket.destroy();
}
