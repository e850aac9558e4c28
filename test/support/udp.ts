import { createSocket, type Socket } from 'node:dgram';
import { openUdp } from '../../src/kernel/sockets.ts';
import { parseIp } from '../../src/model/address.ts';

/**
 * A bound socket that holds what comes while its program is not running: the usual buffer is full after a hundred datagrams,
 * a tenth of a second of traffic, and a test would take for the network's loss what its own program dropped. For programs in
 * namespaces of the test's own: pods may not have so much.
 * @param options.family 6 takes IPv4 too.
 * @param options.port 0 lets the kernel choose.
 * @returns A socket that reads when a listener is there; it may send at once.
 */
export async function roomySocket({ family = 6, port = 0 }: { family?: 4 | 6; port?: number }): Promise<Socket> {
  const { fd } = openUdp({ address: parseIp(family === 4 ? '0.0.0.0' : '::'), port, bufferBytes: 8 << 20 });
  const socket = createSocket(family === 4 ? 'udp4' : 'udp6');
  await new Promise<void>((bound) => socket.bind({ fd }, bound));
  return socket;
}
