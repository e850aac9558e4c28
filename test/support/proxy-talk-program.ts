import { request as askPlain, createServer as createPlainServer } from 'node:http';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  createServer as createHttp2Server,
} from 'node:http2';
import { createInterface } from 'node:readline';
import { connect as connectTls, createServer as createTlsServer, type PeerCertificate } from 'node:tls';

/*
 * Speaks what a proxy reads: gRPC as HTTP/2 in clear, HTTP/1.1, and TLS (by a shared key, so that nobody needs a certificate).
 *
 *   serve GRPC-PORT HTTP-PORT TLS-PORT   says of each request and connection that reached it
 *   talk                                 does what the JSON lines on its standard input ask for
 */

const secret = Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex');
const tlsOptions = { ciphers: 'PSK-AES128-GCM-SHA256', maxVersion: 'TLSv1.2' } as const;
const [, , role, ...ports] = process.argv;
const say = (value: unknown) => process.stdout.write(`${JSON.stringify(value)}\n`);

function serve([grpc = 0, http = 0, tls = 0]: readonly number[]): void {
  const server = createHttp2Server();
  server.on('sessionError', () => {});
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {});
    say(`grpc ${headers[':path']}`);
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    if (headers[':path']?.endsWith('/Echo') === true) stream.pipe(stream);
    else stream.resume().end('answer');
  });
  server.listen(grpc, '::');
  createPlainServer({ keepAliveTimeout: 60_000 }, (request, response) => {
    say(`http ${request.method} ${request.url} from ${request.socket.remoteAddress?.replace('::ffff:', '')}`);
    request.resume();
    response.end('answer');
  }).listen(http, '::');
  createTlsServer({ ...tlsOptions, pskCallback: () => secret }, (socket) => {
    socket.on('error', () => {});
    say(`tls ${String(socket.servername)}`);
    socket.pipe(socket);
  })
    .on('tlsClientError', () => {})
    .listen(tls, '::', () => say('ready'));
}

interface Asked {
  readonly op: 'grpc' | 'http' | 'tls' | 'echo' | 'close';
  readonly host: string;
  readonly port: number;
  readonly path: string;
  /** Of a connection that is kept; absent: one of its own. */
  readonly name?: string;
  readonly text?: string;
}

const sessions = new Map<string, ClientHttp2Session>();
const streams = new Map<string, ClientHttp2Stream>();
const url = ({ host, port }: Asked) => `http://${host.includes(':') ? `[${host}]` : host}:${port}`;

function sessionFor(asked: Asked): ClientHttp2Session {
  const known = sessions.get(asked.name ?? '');
  if (known !== undefined && !known.closed && !known.destroyed) return known;
  const made = connect(url(asked));
  made.on('error', () => {});
  if (asked.name !== undefined) sessions.set(asked.name, made);
  return made;
}

function open(session: ClientHttp2Session, path: string): ClientHttp2Stream {
  return session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers' });
}

function grpc(asked: Asked): Promise<unknown> {
  const session = sessionFor(asked);
  return new Promise((resolve) => {
    const heard: { status?: unknown; grpc?: unknown; text: string; error?: string } = { text: '' };
    const done = () => {
      if (asked.name === undefined) session.close();
      resolve(heard);
    };
    session.once('error', (error) => {
      heard.error = codeOf(error);
      done();
    });
    const stream = open(session, asked.path);
    stream.setEncoding('utf8');
    stream.on('response', (headers) => {
      heard.status = headers[':status'];
      if (headers['grpc-status'] !== undefined) heard.grpc = headers['grpc-status'];
    });
    stream.on('trailers', (headers) => {
      heard.grpc = headers['grpc-status'];
    });
    stream.on('data', (text: string) => {
      heard.text += text;
    });
    stream.on('error', (error) => {
      heard.error = codeOf(error);
    });
    stream.on('close', done);
    stream.end('question');
  });
}

/** One word on a stream that goes on. */
function echo(asked: Asked): Promise<unknown> {
  const name = asked.name ?? '';
  let stream = streams.get(name);
  if (stream === undefined || stream.destroyed) {
    stream = open(sessionFor(asked), asked.path);
    stream.setEncoding('utf8');
    stream.on('error', () => {});
    streams.set(name, stream);
  }
  const used = stream;
  return new Promise((resolve) => {
    const settle = (heard: unknown) => {
      used.off('data', onData).off('close', onClose).off('response', onResponse);
      resolve(heard);
    };
    const onData = (text: string) => settle({ text });
    const onClose = () => settle({ error: 'closed' });
    const onResponse = (headers: Record<string, unknown>) => {
      if (headers['grpc-status'] !== undefined) settle({ grpc: headers['grpc-status'] });
    };
    used.on('data', onData).on('close', onClose).on('response', onResponse);
    used.write(asked.text ?? '');
  });
}

function http(asked: Asked): Promise<unknown> {
  return new Promise((resolve) => {
    const request = askPlain(`${url(asked)}${asked.path}`, { agent: false }, (response) => {
      response.resume().on('end', () => resolve({ status: response.statusCode }));
    });
    request.on('error', (error) => resolve({ error: codeOf(error) }));
    request.end();
  });
}

function tls(asked: Asked): Promise<unknown> {
  return new Promise((resolve) => {
    const { host, port, text = '' } = asked;
    const socket = connectTls({
      ...{ host, port, ...tlsOptions },
      ...(text === '' ? {} : { servername: text }),
      pskCallback: () => ({ psk: secret, identity: 'test' }),
      checkServerIdentity: (_: string, __: PeerCertificate) => undefined,
    });
    socket.on('secureConnect', () => socket.write('hello'));
    socket.on('data', (bytes) => {
      resolve({ text: bytes.toString() });
      socket.destroy();
    });
    socket.on('error', (error) => resolve({ error: codeOf(error) }));
    socket.on('close', () => resolve({ error: 'closed' }));
  });
}

function codeOf(error: Error): string {
  return 'code' in error ? String(error.code) : error.message;
}

if (role === 'serve') serve(ports.map(Number));
else {
  const ways = { grpc, http, tls, echo, close: async (asked: Asked) => sessions.get(asked.name ?? '')?.destroy() };
  createInterface({ input: process.stdin }).on('line', (line) => {
    const asked: Asked = JSON.parse(line);
    ways[asked.op](asked).then((heard) => say(heard ?? {}));
  });
  say('ready');
}
