import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { TLSSocket } from 'node:tls';

/* An HTTPS server: `CERTIFICATE KEY PORT`. It says `ready`, and then each request with the name that its TLS asked for. */

const [, , certificate = '', key = '', port = ''] = process.argv;
const names = new WeakMap<object, TLSSocket['servername']>();
createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, (request, response) => {
  process.stdout.write(`${request.method} ${request.url} ${String(names.get(request.socket))}\n`);
  response.end('answer');
})
  .on('secureConnection', (socket) => names.set(socket, socket.servername))
  .on('tlsClientError', () => {})
  .listen(Number(port), '::', () => process.stdout.write('ready\n'));
