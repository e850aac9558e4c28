/**
 * Puts frames onto a device of the network namespace it is started in, one per line of standard input, in hexadecimal.
 *
 *   nsenter --net=… node src/cli/demo/inject.ts DEVICE
 */
import { createInterface } from 'node:readline';
import { PacketSocket } from '../../kernel/packet-socket.ts';

const [device] = process.argv.slice(2);
if (device === undefined) {
  console.error('usage: inject.ts DEVICE <frames');
  process.exit(2);
}
const socket = new PacketSocket(device);
for await (const line of createInterface({ input: process.stdin }))
  if (line !== '') socket.send(Buffer.from(line, 'hex'));
socket.close();
