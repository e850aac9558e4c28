import { createSocket } from 'node:dgram';
import { connect, createServer, isIPv6 } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TrafficReport } from './traffic.ts';

/*
 * Long-lived traffic from one pod to another, and back: everything that is sent is echoed, and whoever sent it knows what
 * never came back. Runs inside a pod:
 *
 *   traffic-program.ts serve PORT          echoes over TCP and UDP
 *   traffic-program.ts send HOST PORT MARK one TCP connection, and a UDP datagram every 10 ms; each line of standard input
 *                                          is answered with a report, `stop` with the last one
 */

const everyMs = 10;
const chunkBytes = 8192;
/** For what is still on its way when nothing more is sent. */
const drainMs = 3000;

function serve(port: number): void {
  createServer((socket) => socket.on('error', () => {}).pipe(socket)).listen(port, '::', () =>
    console.log('listening'),
  );
  const socket = createSocket('udp6', (datagram, peer) => socket.send(datagram, peer.port, peer.address, () => {}));
  socket.bind(port);
}

/** The n-th piece of the stream: its number and the mark, over and over, so that nothing can be lost or doubled unseen. */
function chunk(number: number, mark: string): Buffer {
  return Buffer.alloc(chunkBytes, `${number} ${mark} `);
}

async function send(host: string, port: number, mark: string): Promise<void> {
  const tcp = { sent: 0, echoed: 0, failure: '' };
  let pending: Buffer = Buffer.alloc(0);
  const stream = connect({ host, port, noDelay: true });
  stream.on('error', ({ message }) => {
    tcp.failure ||= message;
  });
  stream.on('close', () => {
    tcp.failure ||= 'the connection was closed';
  });
  stream.on('data', (bytes: Buffer) => {
    pending = pending.length === 0 ? bytes : Buffer.concat([pending, bytes]);
    for (; pending.length >= chunkBytes; pending = pending.subarray(chunkBytes)) {
      if (pending.compare(chunk(tcp.echoed, mark), 0, chunkBytes, 0, chunkBytes) !== 0)
        tcp.failure ||= `what came back at ${tcp.echoed} is not what was sent`;
      tcp.echoed++;
    }
  });
  let datagrams = 0;
  const back = new Set<number>();
  const errors: string[] = [];
  const socket = createSocket(isIPv6(host) ? 'udp6' : 'udp4', (datagram) =>
    back.add(Number.parseInt(datagram.toString(), 10)),
  );
  socket.on('error', ({ message }) => errors.push(message));
  let sending = true;
  const timer = setInterval(() => {
    if (!sending) return;
    // A stalled connection is not fed without end.
    if (stream.writableLength < 64 * chunkBytes && tcp.failure === '') stream.write(chunk(tcp.sent++, mark));
    socket.send(`${datagrams++} ${mark}`, port, host, (error) => {
      if (error !== null) errors.push(error.message);
    });
  }, everyMs);
  const report = (): TrafficReport => ({
    tcp: { ...tcp },
    udp: {
      sent: datagrams,
      echoed: back.size,
      missing: Array.from({ length: datagrams }, (_, number) => number).filter((number) => !back.has(number)),
      errors: [...new Set(errors)],
    },
  });
  const tell = () => console.log(JSON.stringify(report()));
  for await (const line of createInterface({ input: process.stdin })) {
    if (line !== 'stop') tell();
    else {
      sending = false;
      for (const end = Date.now() + drainMs; Date.now() < end; await sleep(20))
        if (back.size === datagrams && (tcp.echoed === tcp.sent || tcp.failure !== '')) break;
      tell();
      break;
    }
  }
  clearInterval(timer);
  process.exit(0);
}

const [command, first = '', second = '', mark = ''] = process.argv.slice(2);
if (command === 'serve') serve(Number(first));
else await send(first, Number(second), mark);
