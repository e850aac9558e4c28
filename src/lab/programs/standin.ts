import { createSocket } from 'node:dgram';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import { hostname } from 'node:os';
import { callAll, pathHeader, readPath } from './calls.ts';
import { healthPath, servingResponse } from './health.ts';
import { portsOf } from './ports.ts';
import { sniffingServer } from './sniff.ts';
import { targetsOf } from './targets.ts';

/*
 * Stands in for a service whose image a lab cannot pull: listens on the ports given as arguments (`8080/TCP`), and when
 * it is called really calls the services that its environment names, and says what came of it.
 */

const name = process.env.MYELIN_SERVICE ?? 'service';
const targets = targetsOf(process.env);
const healthy = /^\/(_?healthz?|livez|readyz?|live|ping)$/;

function answer(message: IncomingMessage, response: ServerResponse): void {
  message.resume();
  const [path = '/'] = (message.url ?? '/').split('?');
  if (healthy.test(path)) {
    response.setHeader('content-type', 'text/plain').end('ok\n');
    return;
  }
  const header = message.headers[pathHeader];
  const way = readPath(Array.isArray(header) ? header[0] : header);
  void callAll(targets, way.length === 0 ? [name] : way).then((calls) => {
    const ok = calls.every((call) => call.ok);
    const body = JSON.stringify({ service: name, pod: hostname(), path, ok, calls });
    response.setHeader('content-type', 'application/json').end(`${body}\n`);
  });
}

const http1 = createServer({ keepAliveTimeout: 30_000 }, answer);
let http2: Promise<{ emit(event: 'connection', socket: Socket): boolean }> | undefined;

/** HTTP/2 costs a megabyte, and only services with a gRPC probe need it. */
function loadHttp2() {
  http2 ??= import('node:http2').then(({ createServer: create }) =>
    create()
      .on('stream', answerGrpc)
      .on('sessionError', () => {}),
  );
  return http2;
}

function answerGrpc(stream: ServerHttp2Stream, headers: { ':path'?: string }): void {
  stream.on('error', () => stream.destroy());
  stream.resume();
  const known = headers[':path'] === healthPath;
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  // gRPC status 12 is UNIMPLEMENTED.
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': known ? '0' : '12' }));
  stream.end(known ? servingResponse() : undefined);
}

for (const { port, protocol } of portsOf(process.argv.slice(2))) {
  if (protocol === 'TCP')
    sniffingServer(
      (socket) => http1.emit('connection', socket),
      (socket) => void loadHttp2().then((server) => server.emit('connection', socket)),
    ).listen(port, '::');
  if (protocol === 'UDP') {
    const socket = createSocket('udp6', (_, peer) => socket.send(`${hostname()}\n`, peer.port, peer.address));
    socket.bind(port);
  }
}
// A service without ports works all the same.
const idle = setInterval(() => {}, 2 ** 30);
process.on('SIGTERM', () => {
  clearInterval(idle);
  process.exit(0);
});
