import type { Socket } from 'node:net';
import { raw } from './ffi/libc.ts';

const SOL_SOCKET = 1;
const SO_LINGER = 13;

/**
 * Closes a connection by a reset, at once, whatever is still to be written. (Node's own `resetAndDestroy` loses the
 * descriptor where the socket is about to shut down: uv_tcp_close_reset refuses then; and it waits for one that connects.)
 */
export function resetSocket(socket: Socket): void {
  if (socket.destroyed) return;
  const fd = descriptorOf(socket);
  // struct linger {1, 0}. Should it fail, the end is an orderly one, which is an end too.
  if (fd !== undefined) raw.setsockopt(fd, SOL_SOCKET, SO_LINGER, Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0), 8);
  socket.destroy();
}

/** Node has no way of its own to the descriptor of a socket. @returns Undefined where it is closed. */
export function descriptorOf(socket: Socket): number | undefined {
  const handle: unknown = '_handle' in socket ? socket._handle : undefined;
  const fd = typeof handle === 'object' && handle !== null && 'fd' in handle ? handle.fd : undefined;
  return typeof fd === 'number' && fd >= 0 ? fd : undefined;
}
