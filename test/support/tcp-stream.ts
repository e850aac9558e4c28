import { createCipheriv, createHash } from 'node:crypto';
import { connect, createServer } from 'node:net';

/**
 * A program for a namespace: a long TCP transfer whose content is checked.
 *   tcp-stream.ts serve PORT          says "listening", takes one connection, prints bytes and SHA-256 of what came
 *   tcp-stream.ts send HOST PORT MIB  sends, prints the same of what went
 */
const [, , role, ...args] = process.argv;
const hash = createHash('sha256');
let bytes = 0;

function report(): void {
  console.log(`${bytes} ${hash.digest('hex')}`);
}

if (role === 'serve') {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('data', (chunk) => {
      hash.update(chunk);
      bytes += chunk.length;
    });
    socket.on('end', () => {
      socket.end();
      server.close(report);
    });
  });
  server.listen(Number(args[0]), '::', () => console.log('listening'));
} else {
  const [host = '', port = '', mebibytes = ''] = args;
  // A keystream: no two segments are alike, so that one in another's place shows.
  const source = createCipheriv('aes-128-ctr', Buffer.alloc(16), Buffer.alloc(16));
  const socket = connect(Number(port), host);
  for (let i = 0; i < Number(mebibytes) * 16; i++) {
    const chunk = source.update(Buffer.alloc(65_536));
    hash.update(chunk);
    bytes += chunk.length;
    if (!socket.write(chunk)) await new Promise((resolve) => socket.once('drain', resolve));
  }
  socket.end();
  socket.resume();
  await new Promise((resolve) => socket.once('close', resolve));
  report();
}
