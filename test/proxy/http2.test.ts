import assert from 'node:assert/strict';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  createServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import { test } from 'node:test';
import { optionFlags } from '../../src/policy/image.ts';
import type { ProxyImage } from '../../src/policy/proxy/image.ts';
import type { Limits } from '../../src/proxy/limits.ts';
import { allow, imageOf, listening, paths, Talker, TestProxy, until } from './harness.ts';

const onlyA = imageOf([allow(paths('/a'))]);

type OnStream = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, raw: readonly string[]) => void;

async function withProxy(
  onStream: OnStream,
  run: (session: ClientHttp2Session, proxy: TestProxy, origin: Http2Server) => Promise<void>,
  image: ProxyImage = onlyA,
  own: Partial<Limits> = {},
): Promise<void> {
  const origin = createServer({ settings: { maxConcurrentStreams: 1000 } });
  const sessions = new Set<ServerHttp2Session>();
  origin.on('session', (session) => sessions.add(session));
  origin.on('stream', (stream, headers, _flags, raw: readonly string[] = []) => {
    stream.on('error', () => {});
    onStream(stream, headers, raw);
  });
  const proxy = await TestProxy.start(await listening(origin), image, own);
  // Its types do not know the one option.
  const options = { createConnection: () => proxy.connect(false), strictSingleValueFields: false };
  const session = connect('http://shop', options);
  session.on('error', () => {});
  try {
    await run(session, proxy, origin);
  } finally {
    session.destroy();
    await proxy.close();
    for (const one of sessions) one.destroy();
    origin.close();
  }
}

interface Heard {
  headers?: IncomingHttpHeaders;
  raw?: readonly string[];
  trailers?: IncomingHttpHeaders;
  text: string;
  ended: boolean;
  code?: number;
}

/** Asks for something, and collects what is heard of it. */
function ask(session: ClientHttp2Session, path: string, more: OutgoingHttpHeaders = {}, body?: string) {
  const stream = session.request({ ':path': path, ...more }, { endStream: body === undefined });
  return { stream, heard: hear(stream), done: finish(stream, body) };
}

function hear(stream: ClientHttp2Stream): Heard {
  const heard: Heard = { text: '', ended: false };
  stream.setEncoding('latin1');
  stream.on('response', (headers, _flags, raw: readonly string[] = []) => Object.assign(heard, { headers, raw }));
  stream.on('trailers', (trailers) => Object.assign(heard, { trailers }));
  stream.on('data', (text: string) => {
    heard.text += text;
  });
  stream.on('end', () => Object.assign(heard, { ended: true }));
  stream.on('error', () => {});
  stream.on('close', () => Object.assign(heard, { code: stream.rstCode }));
  return heard;
}

async function finish(stream: ClientHttp2Stream, body: string | undefined): Promise<void> {
  if (body !== undefined) stream.end(body);
  await new Promise<void>((resolve) => stream.once('close', resolve));
}

/** Answers with what it was asked and sent, and trailers. */
const echo: OnStream = (stream, headers) => {
  let text = '';
  stream.setEncoding('latin1');
  stream.on('data', (piece: string) => {
    text += piece;
  });
  stream.on('end', () => {
    if (stream.destroyed) return;
    stream.respond(
      { ':status': 200, 'content-type': headers['content-type'] ?? 'text/plain' },
      { waitForTrailers: true },
    );
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0', 'x-sum': '1' }));
    stream.end(`${headers[':method']} ${headers[':path']} ${text};`);
  });
};

test('streams are judged one by one: what is allowed passes with its trailers, what is denied is answered', () =>
  withProxy(echo, async (session, proxy) => {
    const first = ask(session, '/%61/1', { ':method': 'POST' }, 'hello');
    const second = ask(session, '/b', { ':method': 'POST' }, 'much');
    const third = ask(session, '/a/3');
    await Promise.all([first.done, second.done, third.done]);
    assert.equal(first.heard.text, 'POST /%61/1 hello;');
    assert.equal(first.heard.trailers?.['x-sum'], '1');
    assert.equal(second.heard.headers?.[':status'], 403);
    assert.equal(second.heard.code, constants.NGHTTP2_NO_ERROR);
    assert.equal(third.heard.text, 'GET /a/3 ;');
    assert.equal(proxy.opened, 1);
    await until(() => proxy.shared.counts.streams === 0, 'streams end');
    assert.deepEqual(proxy.flows().sort(), [
      'allow GET /a/3 200 0',
      'allow POST /a/1 200 0',
      'deny POST /b 403 HTTP_DENIED',
    ]);
  }));

test('what is denied of gRPC is answered in its way', () =>
  withProxy(echo, async (session, proxy) => {
    const call = ask(
      session,
      '/shop.Cart/Empty',
      { ':method': 'POST', 'content-type': 'application/grpc' },
      '\0\0\0\0\0',
    );
    await call.done;
    const { headers, ended, code } = call.heard;
    assert.deepEqual([headers?.[':status'], headers?.['grpc-status'], ended], [200, '7', true]);
    assert.equal(code, constants.NGHTTP2_NO_ERROR);
    assert.equal(proxy.opened, 0);
    assert.deepEqual(proxy.flows(), ['deny POST /shop.Cart/Empty 200 7 HTTP_DENIED']);
  }));

test('headers pass in their order, each as often as it came, also those that are not to be indexed', () => {
  let came: readonly string[] = [];
  return withProxy(
    (stream, _, raw) => {
      came = raw;
      stream.respond([':status', '200', 'set-cookie', 'a', 'x', '1', 'set-cookie', 'b', 'x', '2']);
      stream.end();
    },
    async (session) => {
      const asked = [':method', 'GET', ':scheme', 'http', ':authority', 'shop', ':path', '/a'];
      const more = ['x', '1', 'cookie', 'a=1', 'x', '\xe9', 'cookie', 'b=2'];
      const stream = session.request([...asked, ...more]);
      const heard = hear(stream);
      await finish(stream, undefined);
      assert.deepEqual(came, [...asked, ...more]);
      assert.deepEqual(heard.raw?.slice(0, 10), [
        ':status',
        '200',
        'set-cookie',
        'a',
        'x',
        '1',
        'set-cookie',
        'b',
        'x',
        '2',
      ]);
    },
  );
});

test('refused: what is not canonical, and heads that are too big', () =>
  withProxy(echo, async (session, proxy) => {
    const cases = [
      [ask(session, '/a/../..'), 400],
      [ask(session, '/a', { ':authority': 'shop', host: 'admin' }), 400],
      [ask(session, '/a', { x: 'a'.repeat(9000) }), 431],
    ] as const;
    for (const [asked, status] of cases) {
      await asked.done;
      assert.equal(asked.heard.headers?.[':status'], status);
    }
    const connectStream = session.request({ ':method': 'CONNECT', ':authority': 'a:1' }, { endStream: true });
    const heard = hear(connectStream);
    await finish(connectStream, undefined);
    assert.ok(Number(heard.headers?.[':status']) === 400 || heard.code !== 0);
    assert.equal(proxy.opened, 0);
    const after = ask(session, '/a');
    await after.done;
    assert.equal(after.heard.text, 'GET /a ;');
  }));

test('what should stand once and stands twice passes as it came, and rules see both', () => {
  let came: readonly string[] = [];
  const json = imageOf([
    allow({ kind: 'http', headers: [{ name: 'content-type', some: [{ op: 'exact', text: 'application/json' }] }] }),
  ]);
  return withProxy(
    (stream, _, raw) => {
      came = raw;
      stream.respond({ ':status': 204 }, { endStream: true });
    },
    async (session) => {
      const asked = [
        ':method',
        'GET',
        ':scheme',
        'http',
        ':authority',
        'shop',
        ':path',
        '/a',
        'content-type',
        'application/json',
      ];
      for (const [type, status] of [
        ['application/json', 204],
        ['text/xml', 403],
      ] as const) {
        const stream = session.request([...asked, 'content-type', type]);
        const heard = hear(stream);
        await finish(stream, undefined);
        assert.equal(heard.headers?.[':status'], status);
      }
      assert.deepEqual(came.slice(8), ['content-type', 'application/json', 'content-type', 'application/json']);
    },
    json,
  );
});

test('both ways at once, message by message', () =>
  withProxy(
    (stream) => {
      stream.respond({ ':status': 200 });
      stream.on('data', (bytes: Buffer) => stream.write(`heard ${bytes.toString()} `));
      stream.on('end', () => stream.end('bye'));
    },
    async (session) => {
      const stream = session.request({ ':path': '/a', ':method': 'POST' }, { endStream: false });
      const heard = hear(stream);
      for (const word of ['one', 'two', 'three']) {
        stream.write(word);
        await until(() => heard.text.includes(`heard ${word}`), word);
      }
      await finish(stream, '');
      assert.ok(heard.text.endsWith('bye'));
    },
  ));

test('trailers of a request pass, and interim answers', () => {
  let trailers: IncomingHttpHeaders = {};
  return withProxy(
    (stream) => {
      stream.additionalHeaders({ ':status': 103 });
      stream.on('trailers', (came) => {
        trailers = came;
      });
      stream.resume();
      stream.on('end', () => {
        stream.respond({ ':status': 204 }, { endStream: true });
      });
    },
    async (session) => {
      const stream = session.request({ ':path': '/a', ':method': 'POST' }, { waitForTrailers: true, endStream: false });
      stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '5' }));
      const interim: unknown[] = [];
      stream.on('headers', (headers) => interim.push(headers[':status']));
      const heard = hear(stream);
      await finish(stream, 'body');
      assert.deepEqual([heard.headers?.[':status'], trailers['x-sum'], interim], [204, '5', [103]]);
    },
  );
});

test('resets are handed on either way, with their code, and other streams go on', () => {
  const streams: ServerHttp2Stream[] = [];
  return withProxy(
    (stream) => {
      streams.push(stream);
    },
    async (session) => {
      const first = ask(session, '/a/1');
      await until(() => streams.length === 1, 'the first');
      first.stream.close(constants.NGHTTP2_CANCEL);
      await until(() => streams[0]?.destroyed === true, 'the server hears it');
      assert.equal(streams[0]?.rstCode, constants.NGHTTP2_CANCEL);
      const second = ask(session, '/a/2');
      await until(() => streams.length === 2, 'the second');
      streams[1]?.close(constants.NGHTTP2_REFUSED_STREAM);
      await second.done;
      assert.equal(second.heard.code, constants.NGHTTP2_REFUSED_STREAM);
      const third = ask(session, '/a/3', { ':method': 'POST' }, 'x'.repeat(1_000_000));
      await until(() => streams.length === 3, 'the third');
      streams[2]?.respond({ ':status': 200 });
      streams[2]?.write('half of an answer');
      await until(() => third.heard.text !== '', 'half of an answer');
      streams[2]?.close(constants.NGHTTP2_INTERNAL_ERROR);
      await third.done;
      assert.equal(third.heard.code, constants.NGHTTP2_INTERNAL_ERROR);
    },
  );
});

test('a server that answers before it has all of the request is heard, and the rest is not sent', () =>
  withProxy(
    (stream) => {
      stream.respond({ ':status': 413 });
      stream.end('too much');
      stream.on('finish', () => stream.close(constants.NGHTTP2_NO_ERROR));
    },
    async (session) => {
      const stream = session.request({ ':path': '/a', ':method': 'POST' }, { endStream: false });
      const heard = hear(stream);
      stream.write('some');
      await new Promise<void>((resolve) => stream.once('close', resolve));
      assert.deepEqual([heard.headers?.[':status'], heard.text, heard.code], [413, 'too much', 0]);
    },
  ));

test('a large body passes as fast as the server takes it, while another stream goes on', () => {
  const held: ServerHttp2Stream[] = [];
  return withProxy(
    (stream, headers, raw) => {
      if (headers[':path'] === '/a/large') held.push(stream.pause());
      else echo(stream, headers, raw);
    },
    async (session) => {
      const size = 8 * 1024 * 1024;
      const large = session.request({ ':path': '/a/large', ':method': 'POST' }, { endStream: false });
      large.on('error', () => {});
      large.end(Buffer.alloc(size, 97));
      await until(() => held.length === 1, 'the stream at the server');
      const other = ask(session, '/a/other', { ':method': 'POST' }, 'x'.repeat(200_000));
      await other.done;
      assert.ok(other.heard.text.startsWith('POST /a/other xxx'));
      let heard = 0;
      held[0]?.on('data', (bytes: Buffer) => {
        heard += bytes.length;
      });
      held[0]?.resume();
      await until(() => heard === size, 'all of it arrives');
    },
  );
});

test('policy is another one: running streams are judged again, each by itself', () => {
  const streams: ServerHttp2Stream[] = [];
  return withProxy(
    (stream) => {
      streams.push(stream);
      stream.respond({ ':status': 200 });
      stream.write('begin ');
    },
    async (session, proxy) => {
      const stays = ask(session, '/a/stays');
      const goes = ask(session, '/a/goes', { ':method': 'POST', 'content-type': 'application/grpc' }, 'x');
      await until(() => stays.heard.text !== '' && goes.heard.text !== '', 'both begin');
      proxy.take(imageOf([allow(paths('/a/stays'))]));
      await goes.done;
      assert.equal(goes.heard.code, constants.NGHTTP2_INADEQUATE_SECURITY);
      streams[0]?.end('end');
      await stays.done;
      assert.equal(stays.heard.text, 'begin end');
      await until(() => streams[1]?.destroyed === true, 'the server hears it');
    },
  );
});

test('a policy may keep what runs, or have the connection reset', () =>
  withProxy(
    (stream) => {
      stream.respond({ ':status': 200 });
      stream.write('begin ');
    },
    async (session, proxy) => {
      const asked = ask(session, '/a');
      await until(() => asked.heard.text !== '', 'it begins');
      proxy.take(imageOf([], optionFlags.keep));
      const denied = ask(session, '/a');
      await denied.done;
      assert.equal(denied.heard.headers?.[':status'], 403);
      assert.equal(asked.stream.closed, false);
      proxy.take(imageOf([], optionFlags.reset));
      await until(() => session.destroyed, 'the connection ends');
    },
  ));

test('a server that goes away is handed on: what runs ends, what is new is for another connection', () => {
  const sessions: ServerHttp2Session[] = [];
  return withProxy(
    (stream) => {
      if (stream.session !== undefined) sessions.push(stream.session as ServerHttp2Session);
      stream.respond({ ':status': 200 });
      setTimeout(() => stream.end('late'), 100);
    },
    async (session) => {
      const asked = ask(session, '/a');
      await until(() => sessions.length === 1, 'the server has it');
      let goaway = false;
      session.on('goaway', () => {
        goaway = true;
      });
      sessions[0]?.close();
      await until(() => goaway, 'the client hears it');
      await asked.done;
      assert.equal(asked.heard.text, 'late');
      await until(() => session.destroyed, 'the connection ends');
    },
  );
});

test('a server that breaks is a broken connection to the client', () => {
  const streams: ServerHttp2Stream[] = [];
  return withProxy(
    (stream) => {
      streams.push(stream);
    },
    async (session) => {
      const asked = ask(session, '/a');
      await until(() => streams.length === 1, 'the server has it');
      streams[0]?.session?.destroy();
      await asked.done;
      assert.equal(asked.heard.ended && asked.heard.headers !== undefined, false);
      await until(() => session.destroyed, 'the connection ends');
    },
  );
});

test('resets in floods end the connection', () =>
  withProxy(echo, async (session, proxy) => {
    for (let round = 0; round < 50 && !session.destroyed; round++) {
      for (let count = 0; count < 40 && !session.destroyed; count++) {
        const stream = session.request({ ':path': '/b' });
        stream.on('error', () => {});
        stream.close(constants.NGHTTP2_CANCEL);
      }
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    await until(() => session.destroyed, 'the connection ends');
    await until(() => proxy.shared.counts.connections === 0, 'nothing is left');
    assert.equal(proxy.shared.counts.streams, 0);
  }));

/** A frame (RFC 9113 section 4.1). */
function frame(type: number, flags: number, stream: number, payload: string): string {
  const { length } = payload;
  return (
    String.fromCharCode(length >> 16, (length >> 8) & 255, length & 255, type, flags, 0, 0, stream >> 8, stream & 255) +
    payload
  );
}
const begin = `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${frame(4, 0, 0, '')}`;
/** HPACK: GET, http, /a by literal, :authority a. */
const getA = `\x82\x86\x44\x02/a\x41\x01a`;

for (const [name, flood] of [
  ['PING that nobody reads the answers of', frame(6, 0, 0, '12345678').repeat(200_000)],
  ['SETTINGS', frame(4, 0, 0, '').repeat(200_000)],
  ['CONTINUATION', frame(1, 0, 1, getA) + frame(9, 0, 1, '').repeat(10_000)],
  ['DATA of a stream that is not there', frame(0, 0, 1, 'x').repeat(10_000)],
  [
    'a header list that is a bomb',
    frame(1, 4, 1, `${getA}\x40\x01x\x7f\x81\x1e${'a'.repeat(4000)}${'\xbe'.repeat(8000)}`),
  ],
] as const)
  test(`a flood is bounded: ${name}`, () =>
    withProxy(echo, async (_, proxy) => {
      const talker = new Talker(proxy.connect());
      talker.say(begin);
      talker.socket.pause();
      const before = process.memoryUsage.rss();
      talker.say(flood);
      await until(
        () => proxy.shared.counts.connections <= 1 || talker.socket.writableLength === 0,
        'it is taken or refused',
      );
      talker.socket.resume();
      talker.socket.end();
      await until(() => talker.state !== 'open', 'it is over');
      assert.ok(process.memoryUsage.rss() - before < 200 * 1024 * 1024);
    }));

test('anything at all after the preface opens nothing', () =>
  withProxy(echo, async (_, proxy) => {
    for (let round = 0; round < 60; round++) {
      const talker = new Talker(proxy.connect());
      const noise = Array.from({ length: 300 }, (_byte, at) =>
        String.fromCharCode((at * 31 * (round + 1) + round * 7) & 255),
      );
      talker.say(round % 2 === 0 ? begin + noise.join('') : begin + frame(1, 5, 1, noise.slice(0, 60).join('')));
      talker.socket.end();
      await talker.becomes('closed', 'reset', 'ended');
      talker.socket.destroy();
    }
    assert.equal(proxy.opened, 0);
  }));
