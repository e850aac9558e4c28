import assert from 'node:assert/strict';
import { createServer as createPlain } from 'node:http';
import { connect as connectHttp2, createSecureServer, type Http2SecureServer } from 'node:http2';
import { createServer as createTcp, type Server, type Socket } from 'node:net';
import { before, test } from 'node:test';
import { type ConnectionOptions, connect, createServer, type TLSSocket, type TlsOptions } from 'node:tls';
import type { ProxyRule } from '../../src/policy/proxy/image.ts';
import type { TlsMaterial } from '../../src/policy/proxy/wire.ts';
import type { RequestMatch } from '../../src/policy/request.ts';
import type { TlsUse } from '../../src/policy/tls.ts';
import { type Pem, TestPki } from '../api/pki.ts';
import { allow, imageOf, listening, paths, Talker, TestProxy, until } from './harness.ts';

/*
 * TLS that is ended and opened by the proxy, between real clients and servers: what is judged within it, whom it trusts, and
 * what becomes of those whom it does not.
 */

const shop = 'shop.example';
const terminate = { name: 'shop', by: 'shop', certificate: 'tls.crt', privateKey: 'tls.key' };
const originate = { name: 'shop', by: 'shop', trustedCA: 'ca.crt' };
const both: TlsUse = { terminate, originate };

/** The CA that pods trust, the server's own, and somebody else's. */
let front: TestPki;
let back: TestPki;
let stranger: TestPki;
let ended: Pem;

const dns = (...names: readonly string[]) => names.map((value) => ({ type: 'dns', value }) as const);

before(async () => {
  [front, back, stranger] = await Promise.all([TestPki.create(), TestPki.create(), TestPki.create()]);
  ended = await front.issue([{ CN: [shop] }], dns(shop, 'other.example'));
});

const rule = (tls: TlsUse, ...requests: readonly RequestMatch[]): ProxyRule => ({ ...allow(...requests), tls });
const secrets = (): TlsMaterial[] => [
  { role: 'terminate', secret: terminate, certificate: ended.cert, privateKey: ended.key },
  { role: 'originate', secret: originate, trustedCA: back.ca },
];

/** A server of HTTP/1.1 in TLS, which says what it is asked. */
class Behind {
  readonly port: number;
  readonly asked: string[] = [];
  readonly names: string[] = [];
  readonly #server: Server;

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.port = port;
  }

  static async start(options: TlsOptions): Promise<Behind> {
    const server = createServer(options);
    const behind = new Behind(server, await listening(server));
    server.on('tlsClientError', () => {});
    server.on('secureConnection', (socket) => {
      behind.names.push(`${String(socket.servername)} ${String(socket.alpnProtocol)}`);
      socket.on('error', () => {});
      socket.on('data', (bytes: Buffer) => {
        for (const [, line = ''] of bytes.toString().matchAll(/^([A-Z]+ \S+) HTTP/gm)) {
          behind.asked.push(line);
          socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi');
        }
      });
    });
    return behind;
  }

  close(): void {
    this.#server.close();
  }
}

async function behindWith(pki: TestPki, name: string, more: TlsOptions = {}, lifetimeMs?: number): Promise<Behind> {
  const { cert, key } = await pki.issue([{ CN: [name] }], dns(name), lifetimeMs);
  return Behind.start({ cert, key, ...more });
}

interface Around {
  readonly proxy: TestProxy;
  readonly refused: () => string[];
}

async function around(to: number, rules: readonly ProxyRule[], run: (around: Around) => Promise<void>): Promise<void> {
  const proxy = await TestProxy.start(to, imageOf(rules));
  proxy.shared.secrets.take(secrets());
  try {
    await run({ proxy, refused: () => Object.keys(proxy.shared.counts.stats.refused) });
  } finally {
    await proxy.close();
  }
}

/** A client that trusts the CA that pods trust, and nobody else. */
function dial(proxy: TestProxy, more: ConnectionOptions = {}): { talker: Talker; tls: TLSSocket } {
  const tls = connect({ socket: proxy.connect(), ca: front.ca, servername: shop, ...more });
  return { talker: new Talker(tls), tls };
}

const get = (path: string, host = shop) => `GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`;

test('what is within TLS is judged request by request, between TLS 1.2 and 1.3 on either side', async () => {
  for (const client of ['TLSv1.2', 'TLSv1.3'] as const)
    for (const server of ['TLSv1.2', 'TLSv1.3'] as const) {
      const behind = await behindWith(back, shop, { minVersion: server, maxVersion: server });
      await around(behind.port, [rule(both, paths('/a'))], async ({ proxy }) => {
        const { talker, tls } = dial(proxy, { minVersion: client, maxVersion: client });
        talker.say(get('/a/1') + get('/b') + get('/a/2', `${shop}:8443`));
        await until(() => talker.statuses.length === 3, `three answers, not ${talker.text} ${talker.state}`);
        assert.deepEqual(talker.statuses, [200, 403, 200]);
        assert.equal(tls.getProtocol(), client);
        assert.equal(tls.authorized, true);
        assert.deepEqual(behind.asked, ['GET /a/1', 'GET /a/2']);
        assert.deepEqual(behind.names, [`${shop} false`]);
        assert.deepEqual(proxy.flows(), [
          `allow GET /a/1 200 ${shop}`,
          `deny GET /b 403 ${shop} HTTP_DENIED`,
          `allow GET /a/2 200 ${shop}`,
        ]);
        tls.end();
        await talker.becomes('closed');
      });
      behind.close();
    }
});

test('a server that does not prove its name is not spoken to: 503, and why is counted', async () => {
  const cases: readonly [name: string, behind: () => Promise<Behind>, code: string][] = [
    ['another CA', () => behindWith(stranger, shop), 'CERT_SIGNATURE_FAILURE'],
    ['another name', () => behindWith(back, 'else.example'), 'ERR_TLS_CERT_ALTNAME_INVALID'],
    ['expired', () => behindWith(back, shop, {}, -86_400_000), 'CERT_HAS_EXPIRED'],
    ['TLS 1.1 only', () => behindWith(back, shop, old), 'ERR_SSL_'],
    ['no protocol in common', () => behindWith(back, shop, { ALPNProtocols: ['spdy'] }), 'ERR_SSL_'],
  ];
  for (const [name, start, code] of cases) {
    const behind = await start();
    await around(behind.port, [rule(both, paths('/a'))], async ({ proxy, refused }) => {
      const { talker } = dial(proxy, { ALPNProtocols: ['http/1.1'] });
      talker.say(get('/b') + get('/a'));
      await until(
        () => talker.statuses.length === 2,
        () => `${name}: two answers, not ${talker.text} ${talker.state}`,
      );
      await talker.becomes('closed', 'ended');
      assert.deepEqual(talker.statuses, [403, 503], name);
      assert.deepEqual(behind.asked, [], name);
      const [first = ''] = refused();
      assert.ok(first.startsWith(`TLS_UNVERIFIED ${code}`), `${name}: ${refused().join()}`);
      assert.deepEqual(
        proxy.flows().map((flow) => flow.split(' ').at(-1)),
        ['HTTP_DENIED', 'TLS_UNVERIFIED'],
        name,
      );
    });
    behind.close();
  }
});
const old: TlsOptions = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' };

test('a server that is not there, or no TLS, is answered 503 too', async () => {
  const gone = await behindWith(back, shop);
  gone.close();
  const plain = createPlain((_, response) => response.end('clear'));
  for (const port of [gone.port, await listening(plain)])
    await around(port, [rule(both, paths('/a'))], async ({ proxy }) => {
      const { talker } = dial(proxy);
      talker.say(get('/a'));
      await talker.hears('503');
    });
  plain.close();
});

test('both sides speak what the server chose', async () => {
  const cases: readonly [
    server: string[] | undefined,
    client: string[] | undefined,
    agreed: string | false | undefined,
  ][] = [
    [['http/1.1'], ['h2', 'http/1.1'], 'http/1.1'],
    [['http/1.1'], undefined, false],
    [undefined, ['h2', 'http/1.1'], 'http/1.1'],
    [undefined, ['h2'], undefined],
    [['http/1.1'], ['spdy/3'], undefined],
  ];
  for (const [server, client, agreed] of cases) {
    const behind = await behindWith(back, shop, server === undefined ? {} : { ALPNProtocols: server });
    await around(behind.port, [rule(both, paths('/a'))], async ({ proxy, refused }) => {
      const { talker, tls } = dial(proxy, client === undefined ? {} : { ALPNProtocols: client });
      talker.say(get('/a'));
      if (agreed === undefined) {
        await talker.becomes('reset', 'closed');
        assert.equal(talker.text, '');
        await until(
          () => refused().includes('TLS_MALFORMED'),
          () => refused().join(),
        );
      } else {
        await talker.hears('200');
        assert.equal(tls.alpnProtocol, agreed);
      }
      tls.destroy();
    });
    behind.close();
  }
});

/** A server of HTTP/2 in TLS. */
async function http2Behind(pki: TestPki, asked: string[]): Promise<{ server: Http2SecureServer; port: number }> {
  const { cert, key } = await pki.issue([{ CN: [shop] }], dns(shop));
  const server = createSecureServer({ cert, key });
  server.on('sessionError', () => {});
  server.on('stream', (stream, headers) => {
    asked.push(`${headers[':scheme']} ${headers[':path']}`);
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    stream.resume().end('answer');
  });
  return { server, port: await listening(server) };
}

function call(session: ReturnType<typeof connectHttp2>, path: string): Promise<string> {
  return new Promise((resolve) => {
    const heard: string[] = [];
    const stream = session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/grpc' });
    const grpc = (headers: Record<string, unknown>) => {
      if (headers['grpc-status'] !== undefined) heard.push(`grpc ${String(headers['grpc-status'])}`);
    };
    stream.on('response', (headers) => {
      heard.push(String(headers[':status']));
      grpc(headers);
    });
    stream.on('trailers', grpc);
    stream.on('error', (error) => heard.push(error.message));
    stream.on('close', () => resolve(heard.join(' ')));
    stream.resume().end('question');
  });
}

test('gRPC within TLS is judged call by call; of a server that proves nothing it hears UNAVAILABLE', async () => {
  for (const [pki, expected] of [
    [back, '200 grpc 0'],
    [stranger, '200 grpc 14'],
  ] as const) {
    const asked: string[] = [];
    const { server, port } = await http2Behind(pki, asked);
    await around(port, [rule(both, paths('/shop.Cart/'))], async ({ proxy }) => {
      // Where nobody knows what the server speaks, the client is offered what we can read.
      const ALPNProtocols = pki === back ? ['h2', 'http/1.1'] : ['h2'];
      const tls = connect({ socket: proxy.connect(), ca: front.ca, servername: shop, ALPNProtocols });
      tls.on('error', () => {});
      await new Promise((resolve) => tls.once('secureConnect', resolve));
      assert.equal(tls.alpnProtocol, 'h2');
      const session = connectHttp2(`https://${shop}`, { createConnection: () => tls });
      session.on('error', () => {});
      assert.deepEqual(await Promise.all([call(session, '/shop.Admin/Drop'), call(session, '/shop.Cart/Add')]), [
        '200 grpc 7',
        expected,
      ]);
      assert.deepEqual(asked, pki === back ? ['https /shop.Cart/Add'] : []);
      session.destroy();
    });
    await around(port, [rule({ originate }, paths('/shop.Cart/'))], async ({ proxy, refused }) => {
      asked.length = 0;
      const session = connectHttp2(`http://${shop}`, { createConnection: () => proxy.connect() });
      session.on('error', () => {});
      assert.deepEqual(await Promise.all([call(session, '/shop.Admin/Drop'), call(session, '/shop.Cart/Add')]), [
        '200 grpc 7',
        expected,
      ]);
      assert.deepEqual(asked, pki === back ? ['https /shop.Cart/Add'] : []);
      assert.equal(refused().length, pki === back ? 0 : 1);
      session.destroy();
    });
    server.close();
  }
});

test('what is said in clear goes on in TLS, for the host that its first request names', async () => {
  const behind = await behindWith(back, shop);
  await around(behind.port, [rule({ originate }, paths('/a'))], async ({ proxy }) => {
    const talker = new Talker(proxy.connect());
    talker.say(get('/b') + get('/a') + get('/a/2') + get('/a', 'other.example') + get('/a'));
    await until(
      () => talker.statuses.length === 4,
      () => talker.text,
    );
    assert.deepEqual(talker.statuses, [403, 200, 200, 421]);
    await talker.becomes('closed', 'ended');
    assert.deepEqual(behind.asked, ['GET /a', 'GET /a/2']);
    assert.deepEqual(behind.names, [`${shop} http/1.1`.replace('http/1.1', 'false')]);
    assert.equal(proxy.opened, 1);
    const other = new Talker(proxy.connect());
    other.say(get('/a', 'other.example'));
    await other.hears('503');
    // By its address, which its certificate has not.
    const unnamed = new Talker(proxy.connect());
    unnamed.say('GET /a HTTP/1.0\r\n\r\n');
    await unnamed.hears('503');
    assert.deepEqual(behind.asked, ['GET /a', 'GET /a/2']);
  });
  behind.close();
});

test('TLS that is only ended goes on in clear, each request for the host that was asked for', async () => {
  const asked: string[] = [];
  const plain = createPlain((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    response.end('clear');
  });
  const port = await listening(plain);
  await around(port, [rule({ terminate }, paths('/a'))], async ({ proxy }) => {
    const { talker, tls } = dial(proxy, { ALPNProtocols: ['h2', 'http/1.1'] });
    talker.say(get('/a') + get('/b') + get('/a', 'other.example'));
    await until(
      () => talker.statuses.length === 3,
      () => talker.text,
    );
    assert.deepEqual(talker.statuses, [200, 403, 421]);
    assert.equal(tls.alpnProtocol, 'http/1.1');
    assert.deepEqual(asked, ['GET /a']);
  });
  plain.close();
});

test('names of servers say which rule TLS is ended by, and whose is not ended passes unread or not at all', async () => {
  const behind = await behindWith(back, shop);
  const name: RequestMatch = {
    kind: 'http',
    path: { some: [{ op: 'prefix', text: '/a' }] },
    serverName: { some: [{ op: 'exact', text: shop }] },
  };
  const opaque = allow({ kind: 'tls', serverNames: [{ pattern: 'other.example' }] });
  await around(behind.port, [rule(both, name), opaque], async ({ proxy }) => {
    const own = dial(proxy);
    own.talker.say(get('/a') + get('/b'));
    await until(
      () => own.talker.statuses.length === 2,
      () => own.talker.text,
    );
    assert.deepEqual(own.talker.statuses, [200, 403]);
    // Unread: what the client sees is the server's own certificate.
    const other = dial(proxy, { servername: 'other.example', ca: back.ca, checkServerIdentity: () => undefined });
    other.talker.say(get('/b', 'other.example'));
    await other.talker.hears('200');
    const third = dial(proxy, { servername: 'third.example' });
    await third.talker.becomes('reset');
  });
  behind.close();
});

test('without its Secret, or with two, nothing passes, and clear is not taken for TLS', async () => {
  const behind = await behindWith(back, shop);
  const another: TlsUse = { ...both, terminate: { ...terminate, name: 'another' } };
  const cases: readonly [rules: ProxyRule[], drop: TlsMaterial['role'] | undefined][] = [
    [[rule(both, paths('/a'))], 'terminate'],
    [[rule(both, paths('/a'))], 'originate'],
    [[rule({ originate }, paths('/a'))], 'originate'],
    [[rule(both, paths('/a')), rule(another, paths('/a'))], undefined],
  ];
  for (const [rules, drop] of cases)
    await around(behind.port, rules, async ({ proxy, refused }) => {
      proxy.shared.secrets.take(secrets().filter(({ role }) => role !== drop));
      const clear = rules[0]?.tls?.terminate === undefined;
      const talker = clear ? new Talker(proxy.connect()) : dial(proxy).talker;
      talker.say(get('/a'));
      await talker.becomes('reset', 'closed');
      assert.equal(talker.text, '');
      assert.deepEqual(refused(), ['TLS_SECRET']);
    });
  await around(behind.port, [rule(both, paths('/a'))], async ({ proxy, refused }) => {
    const talker = new Talker(proxy.connect());
    talker.say(get('/a'));
    await talker.becomes('reset');
    assert.deepEqual(refused(), ['TLS_MALFORMED']);
  });
  assert.deepEqual(behind.asked, []);
  behind.close();
});

test('a Secret that cannot be used is none', async () => {
  const behind = await behindWith(back, shop);
  const other = await front.issue([{ CN: [shop] }], dns(shop));
  for (const broken of [{ privateKey: other.key }, { certificate: 'x' }, { privateKey: '' }])
    await around(behind.port, [rule(both, paths('/a'))], async ({ proxy, refused }) => {
      proxy.shared.secrets.take(secrets().map((one) => (one.role === 'terminate' ? { ...one, ...broken } : one)));
      await dial(proxy).talker.becomes('reset', 'closed');
      assert.deepEqual(refused(), ['TLS_SECRET']);
    });
  behind.close();
});

test('a Secret that is another one now is used from the next connection on', async () => {
  const behind = await behindWith(back, shop);
  await around(behind.port, [rule(both, paths('/a'))], async ({ proxy }) => {
    const first = dial(proxy);
    first.talker.say(get('/a'));
    await first.talker.hears('200');
    const next = await stranger.issue([{ CN: [shop] }], dns(shop));
    proxy.shared.secrets.take([
      { role: 'terminate', secret: terminate, certificate: next.cert, privateKey: next.key },
      { role: 'originate', secret: originate, trustedCA: stranger.ca },
    ]);
    first.talker.say(get('/a'));
    await until(() => first.talker.statuses.length === 2, 'the first goes on');
    const second = dial(proxy, { ca: stranger.ca });
    second.talker.say(get('/a'));
    await second.talker.hears('503');
    await dial(proxy).talker.becomes('reset');
  });
  behind.close();
});

test('a certificate of its own is shown where one is named', async () => {
  const own = { ...originate, certificate: 'tls.crt', privateKey: 'tls.key' };
  const { cert, key } = await front.issue([{ CN: ['the pods'] }]);
  const behind = await behindWith(back, shop, { requestCert: true, rejectUnauthorized: true, ca: front.ca });
  await around(behind.port, [rule({ terminate, originate: own }, paths('/a'))], async ({ proxy }) => {
    const [shown] = secrets();
    assert.ok(shown !== undefined);
    proxy.shared.secrets.take([
      shown,
      { role: 'originate', secret: own, trustedCA: back.ca, certificate: cert, privateKey: key },
    ]);
    const { talker } = dial(proxy);
    talker.say(get('/a'));
    await talker.hears('200');
  });
  behind.close();
});

test('another policy ends what goes on in the wrong way, and what it denies', async () => {
  const behind = await behindWith(back, shop);
  await around(behind.port, [rule(both, paths('/a'))], async ({ proxy }) => {
    const { talker } = dial(proxy);
    talker.say(get('/a'));
    await talker.hears('200');
    proxy.take(imageOf([rule(both, paths('/a', '/c'))]));
    talker.say(get('/c'));
    await until(
      () => talker.statuses.length === 2,
      () => talker.text,
    );
    assert.deepEqual(talker.statuses, [200, 200]);
    proxy.take(imageOf([rule({ terminate: { ...terminate, name: 'new' }, originate }, paths('/a'))]));
    await talker.becomes('closed', 'ended');
    assert.deepEqual(behind.asked, ['GET /a', 'GET /c']);
  });
  behind.close();
});

/** What a client of TLS says first. */
async function helloBytes(): Promise<Buffer> {
  const heard = Promise.withResolvers<Buffer>();
  const sink = createTcp((socket) => socket.on('error', () => {}).once('data', heard.resolve));
  const port = await listening(sink);
  const client = connect({ port, host: '127.0.0.1', servername: shop });
  client.on('error', () => {});
  const bytes = await heard.promise;
  client.destroy();
  sink.close();
  return bytes;
}

test('garbage, at any place, ends its connection and nothing else', async () => {
  const behind = await behindWith(back, shop);
  const hello = await helloBytes();
  await around(behind.port, [rule(both, paths('/a'))], async ({ proxy, refused }) => {
    const live = dial(proxy);
    live.talker.say(get('/a'));
    await live.talker.hears('200');
    for (const [garbage, reason] of [
      [Buffer.from('\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00', 'latin1'), 'TLS_MALFORMED'],
      [Buffer.concat([hello, Buffer.from('no record of TLS at all')]), 'TLS_MALFORMED'],
      [Buffer.concat([hello, hello]), 'TLS_MALFORMED'],
    ] as const) {
      const counted = proxy.shared.counts.stats.refused[reason] ?? 0;
      const raw = new Talker(proxy.connect());
      raw.socket.write(garbage);
      await raw.becomes('closed', 'ended', 'reset');
      await until(
        () => (proxy.shared.counts.stats.refused[reason] ?? 0) > counted,
        () => refused().join(),
      );
    }
    const within = dial(proxy);
    within.talker.say('\x00\x01\x02 no HTTP\r\n\r\n');
    await within.talker.hears('400');
    live.talker.say(get('/a'));
    await until(() => live.talker.statuses.length === 2, 'the other one goes on');
  });
  behind.close();
});

test('a server that says nothing is given up with its client, who is not refused anything', async () => {
  const opened: Socket[] = [];
  const silent = createTcp((socket) => opened.push(socket.on('error', () => {})));
  const port = await listening(silent);
  await around(port, [rule(both, paths('/a'))], async ({ proxy, refused }) => {
    const { tls } = dial(proxy);
    await until(() => opened.length === 1, 'the server is asked');
    const gone = new Promise((resolve) => opened[0]?.once('close', resolve).resume());
    tls.on('error', () => {});
    tls.destroy();
    await gone;
    await until(() => proxy.shared.counts.stats.connections === 0, 'it is over');
    assert.deepEqual(refused(), []);
  });
  await around(port, [rule(both, paths('/a'))], async ({ proxy, refused }) => {
    const patient = await TestProxy.start(port, imageOf([rule(both, paths('/a'))]), { connectMs: 50 });
    patient.shared.secrets.take(secrets());
    const { talker } = dial(patient);
    talker.say(get('/a'));
    await talker.hears('503');
    assert.deepEqual(Object.keys(patient.shared.counts.stats.refused), ['TLS_UNVERIFIED ETIMEDOUT']);
    assert.deepEqual([refused(), proxy.opened], [[], 0]);
    await patient.close();
  });
  silent.close();
});
