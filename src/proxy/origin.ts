import type { Socket } from 'node:net';
import { savedSyn } from '../kernel/saved-syn.ts';
import { tryParseIp } from '../model/address.ts';
import { firstNameIdentity, identityNumber } from '../model/identity.ts';
import type { Origin } from './connection.ts';

/**
 * Who an accepted connection is between: its addresses are the original ones, and the datapath has written into its first
 * packet who is at the end that is not on this node.
 * @returns Undefined where the packet was not kept, is not the datapath's, or the connection is gone already.
 */
export function originOf(socket: Socket): Origin | undefined {
  const frame = savedSyn(socket);
  const said = frame === undefined ? undefined : decodeSource(frame.subarray(6, 12));
  const { remoteAddress = '', remotePort, localAddress = '', localPort } = socket;
  const client = tryParseIp(remoteAddress);
  const server = tryParseIp(localAddress);
  if (said === undefined || client === undefined || server === undefined) return undefined;
  if (remotePort === undefined || localPort === undefined) return undefined;
  return { client, clientPort: remotePort, server, port: localPort, ...said };
}

/**
 * The source address of the frame: locally administered and unicast; three bits say whose entry it was and the highest of
 * the pattern's, two bytes the rest of the pattern, three the identity.
 */
function decodeSource(mac: Uint8Array): Pick<Origin, 'identity' | 'pattern' | 'seenFrom'> | undefined {
  const [first, high, low, a, b, c] = mac;
  if (first === undefined || high === undefined || low === undefined) return undefined;
  if (a === undefined || b === undefined || c === undefined || (first & 3) !== 2) return undefined;
  const pattern = (first >> 3) * 65_536 + high * 256 + low;
  return {
    seenFrom: (first & 4) === 0 ? 'server' : 'client',
    identity: identityNumber(a * 65_536 + b * 256 + c),
    pattern: identityNumber(pattern === 0 ? 0 : firstNameIdentity + pattern - 1),
  };
}
