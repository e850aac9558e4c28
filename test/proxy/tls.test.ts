import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer as createTcp, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { connect, createServer, type Server, type TLSSocket } from 'node:tls';
import type { ProxyImage } from '../../src/policy/proxy/image.ts';
import type { RequestMatch } from '../../src/policy/request.ts';
import { allow, imageOf, Talker, TestProxy, until } from './harness.ts';

const directory = mkdtempSync(join(tmpdir(), 'myelin-tls-'));
let server: Server;
let port = 0;
const sockets: Socket[] = [];

before(async () => {
  const [key, cert] = [join(directory, 'key'), join(directory, 'cert')];
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  execFileSync('openssl', ['req', '-x509', ...curve, '-keyout', key, '-out', cert, '-subj', '/CN=a'], {
    stdio: 'ignore',
  });
  server = createServer({ key: readFileSync(key), cert: readFileSync(cert) }, (socket) => {
    socket.on('error', () => {});
    socket.on('data', (bytes: Buffer) => socket.write(`heard ${bytes.toString()};`));
  });
  server.on('connection', (socket) => sockets.push(socket));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address: AddressInfo | string | null = server.address();
  port = typeof address === 'object' && address !== null ? address.port : 0;
});

after(() => {
  server.close();
  for (const socket of sockets) socket.destroy();
  rmSync(directory, { recursive: true });
});

const named = (...patterns: readonly string[]): RequestMatch => ({
  kind: 'tls',
  serverNames: patterns.map((pattern) => ({ pattern })),
});
const onlyShop = imageOf([allow(named('shop.example', '*.shop.example'))]);

async function withProxy(run: (proxy: TestProxy) => Promise<void>, image: ProxyImage = onlyShop): Promise<void> {
  const proxy = await TestProxy.start(port, image);
  try {
    await run(proxy);
  } finally {
    await proxy.close();
  }
}

/** A TLS client: what it hears, or why it does not. */
function dial(proxy: TestProxy, servername?: string) {
  const socket: TLSSocket = connect({
    socket: proxy.connect(),
    rejectUnauthorized: false,
    ...(servername === undefined ? {} : { servername }),
  });
  const heard = { text: '', error: '', closed: false };
  socket.on('data', (bytes: Buffer) => {
    heard.text += bytes.toString();
  });
  socket.on('error', (error) => {
    heard.error = error.message;
  });
  socket.on('close', () => {
    heard.closed = true;
  });
  return { socket, heard };
}

test('an allowed name passes untouched: the handshake is with the server', () =>
  withProxy(async (proxy) => {
    const { socket, heard } = dial(proxy, 'Shop.Example');
    socket.write('hello');
    await until(() => heard.text === 'heard hello;', 'the answer');
    assert.equal(socket.getPeerCertificate().subject.CN, 'a');
    socket.end();
    await until(() => heard.closed, 'the end');
    assert.deepEqual(proxy.flows(), ['allow shop.example']);
  }));

for (const [name, servername] of [
  ['another name', 'admin.example'],
  ['no name', undefined],
] as const)
  test(`${name} is denied by an alert, and the server hears nothing`, () =>
    withProxy(async (proxy) => {
      const { heard } = dial(proxy, servername);
      await until(() => heard.closed, 'the end');
      assert.match(heard.error, /alert access denied|alert number 49/i);
      assert.equal(proxy.opened, 0);
      assert.deepEqual(proxy.flows(), [`deny ${servername === undefined ? '' : `${servername} `}TLS_DENIED`]);
    }));

test('any name, or none, passes where none is asked for', () =>
  withProxy(
    async (proxy) => {
      const { socket, heard } = dial(proxy);
      socket.write('hello');
      await until(() => heard.text === 'heard hello;', 'the answer');
    },
    imageOf([allow({ kind: 'tls' })]),
  ));

test('another policy ends what it denies, and leaves what it allows', () =>
  withProxy(async (proxy) => {
    const [stays, goes] = [dial(proxy, 'a.shop.example'), dial(proxy, 'shop.example')];
    for (const { socket, heard } of [stays, goes]) {
      socket.write('hello');
      await until(() => heard.text !== '', 'the answer');
    }
    proxy.take(imageOf([allow(named('*.shop.example'))]));
    await until(() => goes.heard.closed, 'the one ends');
    stays.socket.write('again');
    await until(() => stays.heard.text.endsWith('heard again;'), 'the other goes on');
  }));

test('what is no ClientHello is refused, and HTTP in clear where policy is about names is denied', () =>
  withProxy(async (proxy) => {
    const [broken, clear, strange] = [
      '\x16\x03\x01\x00\x04\x02\0\0\0',
      'GET / HTTP/1.1\r\nHost: a\r\n\r\n',
      '\x80\x2e\x01',
    ].map((text) => {
      const talker = new Talker(proxy.connect());
      talker.say(text);
      return talker;
    });
    await broken?.becomes('ended');
    assert.equal(broken?.text, '\x15\x03\x03\0\x02\x02\x32');
    await clear?.hears('403');
    await strange?.hears('400');
    assert.equal(proxy.opened, 0);
    assert.deepEqual(proxy.shared.counts.stats.refused, { TLS_MALFORMED: 1, PROXY_MALFORMED: 1 });
  }));

test('TLS where policy asks for HTTP is denied', () =>
  withProxy(
    async (proxy) => {
      const { heard } = dial(proxy, 'shop.example');
      await until(() => heard.closed, 'the end');
      assert.match(heard.error, /access denied|49/);
      assert.equal(proxy.opened, 0);
    },
    imageOf([allow({ kind: 'http' })]),
  ));

test('a half-closed connection goes on the other way', async () => {
  const heard: string[] = [];
  const origin = createTcp({ allowHalfOpen: true }, (socket) => {
    const talker = new Talker(socket);
    socket.on('end', () => {
      heard.push(talker.text);
      socket.end('after the end');
    });
  });
  await new Promise<void>((resolve) => origin.listen(0, '127.0.0.1', resolve));
  const address: AddressInfo | string | null = origin.address();
  const to = typeof address === 'object' && address !== null ? address.port : 0;
  // Policy allows it whatever it carries, and some of it is about requests: the connection is known, and not read.
  const image = imageOf([{ ...allow(), number: 8 }, allow({ kind: 'tls' })]);
  const proxy = await TestProxy.start(to, image);
  const talker = new Talker(proxy.connect());
  talker.say('\0whatever');
  talker.socket.end();
  await talker.hears('after the end');
  await talker.becomes('closed');
  assert.deepEqual(heard, ['\0whatever']);
  await proxy.close();
  origin.close();
});
