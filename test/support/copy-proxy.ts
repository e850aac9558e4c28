import { connect, createServer, type Socket } from 'node:net';
import { savedSyn } from '../../src/kernel/saved-syn.ts';

/*
 * Stands in for the proxy where only the way to it is tested: it accepts on the descriptors 3 and 4, connects under the same
 * addresses, and passes bytes on. For each connection it prints a line of JSON: who it is between, and the frame's source.
 */

function accepted(client: Socket): void {
  const { remoteAddress = '', remotePort = 0, localAddress = '', localPort = 0 } = client;
  const frame = savedSyn(client);
  const source = frame === undefined ? '' : Buffer.from(frame.subarray(6, 12)).toString('hex');
  const plain = (address: string) => address.replace(/^::ffff:/, '');
  const ends = { client: plain(remoteAddress), clientPort: remotePort, server: plain(localAddress), port: localPort };
  console.log(JSON.stringify({ ...ends, source }));
  const server = connect({
    host: ends.server,
    port: ends.port,
    localAddress: ends.client,
    localPort: ends.clientPort,
    allowHalfOpen: true,
  });
  for (const [one, other] of [
    [client, server],
    [server, client],
  ] as const) {
    one.on('error', () => other.resetAndDestroy());
    one.pipe(other);
  }
}

for (const fd of [3, 4]) createServer({ allowHalfOpen: true }, accepted).listen({ fd }, () => console.log('ready'));
process.stdin.resume().on('end', () => process.exit(0));
