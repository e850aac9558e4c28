import { isIPv6 } from 'node:net';
import { roomySocket } from './udp.ts';

/**
 * A program for a namespace: datagrams at a steady rate, each answered, each counted.
 *   udp-echo.ts serve PORT               says "listening", answers until it is ended
 *   udp-echo.ts send HOST PORT COUNT RATE  sends COUNT datagrams, RATE a second, and prints how many different answers came
 */
const [, , role, ...args] = process.argv;

/** At once: who could not run for a while catches up step by step, as a queue on the way may hold a hundred or so. */
const most = 4;

if (role === 'serve') {
  const socket = await roomySocket({ port: Number(args[0]) });
  socket.on('message', (message, from) => socket.send(message, from.port, from.address));
  console.log('listening');
} else {
  const [host = '', port = '', countText = '', rate = ''] = args;
  const count = Number(countText);
  const socket = await roomySocket({ family: isIPv6(host) ? 6 : 4 });
  const answered = new Set<number>();
  const start = performance.now();
  let sent = 0;
  let lastAnswer = start;
  socket.on('message', (message) => {
    answered.add(message.readUInt32BE(0));
    lastAnswer = performance.now();
  });
  while (answered.size < count && (sent < count || performance.now() - lastAnswer < 3000)) {
    const due = Math.min(count, sent + most, Math.ceil(((performance.now() - start) / 1000) * Number(rate)));
    for (; sent < due; sent++) {
      const message = Buffer.alloc(100 + (sent % 1200));
      message.writeUInt32BE(sent, 0);
      socket.send(message, Number(port), host);
      lastAnswer = performance.now();
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  console.log(answered.size);
  socket.close();
}
