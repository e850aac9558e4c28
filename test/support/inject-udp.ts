import { createSocket } from 'node:dgram';
import { createInterface } from 'node:readline';

/**
 * A program for a namespace: sends each line of its standard input, hexadecimal, as a datagram. `inject-udp.ts ADDRESS PORT`.
 * An attacker on the underlay, or a peer that is not ours.
 */
const [, , address = '', port = ''] = process.argv;
const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
for await (const line of createInterface({ input: process.stdin }))
  await new Promise<void>((resolve, reject) =>
    socket.send(Buffer.from(line, 'hex'), Number(port), address, (error) => (error ? reject(error) : resolve())),
  );
socket.close();
