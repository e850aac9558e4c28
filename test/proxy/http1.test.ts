import assert from 'node:assert/strict';
import { createServer as createHttp } from 'node:http';
import { createServer, type Server, type Socket } from 'node:net';
import { test } from 'node:test';
import { optionFlags } from '../../src/policy/image.ts';
import type { ProxyImage } from '../../src/policy/proxy/image.ts';
import type { Limits } from '../../src/proxy/limits.ts';
import { allow, imageOf, listening, paths, Talker, TestProxy, until } from './harness.ts';

const onlyA = imageOf([allow(paths('/a'))]);

/** A server of HTTP that says what it was asked: `METHOD URL BODY`. */
function echo(): Server {
  return createHttp((request, response) => {
    let body = '';
    request.setEncoding('latin1');
    request.on('data', (text: string) => {
      body += text;
    });
    request.on('end', () => response.end(`${request.method} ${request.url} ${body};`));
  });
}

/** A server that says what the test has it say, and hears what it hears. */
function scripted(onSocket: (talker: Talker) => void): Server {
  return createServer({ allowHalfOpen: true }, (socket) => onSocket(new Talker(socket)));
}

async function withProxy(
  origin: Server,
  run: (proxy: TestProxy, talk: () => Talker) => Promise<void>,
  image: ProxyImage | undefined = onlyA,
  own: Partial<Limits> = {},
): Promise<void> {
  const sockets: Socket[] = [];
  origin.on('connection', (socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
  });
  const proxy = await TestProxy.start(await listening(origin), image, own);
  try {
    await run(proxy, () => new Talker(proxy.connect()));
  } finally {
    await proxy.close();
    for (const socket of sockets) socket.destroy();
    origin.close();
  }
}

const get = (path: string, more = ''): string => `GET ${path} HTTP/1.1\r\nHost: a\r\n${more}\r\n`;

test('an allowed request passes as it came, and so does its answer; a denied one is answered, and the connection goes on', () =>
  withProxy(echo(), async (proxy, talk) => {
    const talker = talk();
    talker.say(get('/%61/x'));
    await talker.hears('GET /%61/x ;');
    talker.say(get('/b'));
    await talker.hears('403');
    talker.say(get('/a/y'));
    await talker.hears('GET /a/y ;');
    assert.deepEqual(talker.statuses, [200, 403, 200]);
    assert.equal(proxy.opened, 1);
    assert.deepEqual(proxy.flows(), ['allow GET /a/x 200', 'deny GET /b 403 HTTP_DENIED', 'allow GET /a/y 200']);
  }));

test('a denied request never reaches the server, which hears of no connection', () =>
  withProxy(echo(), async (proxy, talk) => {
    const talker = talk();
    talker.say(get('/b'));
    await talker.hears('403');
    assert.equal(proxy.opened, 0);
  }));

test('pipelined requests are answered in their order, allowed and denied', () =>
  withProxy(echo(), async (_, talk) => {
    const talker = talk();
    const post = 'POST /a/2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n';
    const denied = 'POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 31\r\n\r\nGET /a/not HTTP/1.1\r\nHost: a\r\n\r';
    talker.say(get('/a/1') + get('/b') + post + denied + get('/a/3'));
    await talker.hears('GET /a/3 ;');
    assert.deepEqual(talker.statuses, [200, 403, 200, 403, 200]);
    assert.ok(talker.text.includes('POST /a/2 abc;'));
    assert.ok(!talker.text.includes('not'));
  }));

test('in single bytes it is the same', () =>
  withProxy(echo(), async (_, talk) => {
    const talker = talk();
    for (const byte of get('/a/1') + get('/b') + get('/a/2')) {
      talker.say(byte);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await talker.hears('GET /a/2 ;');
    assert.deepEqual(talker.statuses, [200, 403, 200]);
  }));

for (const [name, text, status] of [
  ['a bare line feed', 'GET /a HTTP/1.1\nHost: a\n\n', 400],
  ['two lengths', 'POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n', 400],
  ['CONNECT', 'CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n', 400],
  ['a head that is too big', get('/a', `X: ${'a'.repeat(9000)}\r\n`), 431],
  ['too many lines', get('/a', 'X: a\r\n'.repeat(101)), 431],
] as const)
  test(`refused: ${name}`, () =>
    withProxy(echo(), async (proxy, talk) => {
      const talker = talk();
      talker.say(text);
      await talker.hears(/\r\n\r\n/);
      talker.say(get('/a'));
      await talker.becomes('ended');
      assert.deepEqual(talker.statuses, [status]);
      assert.equal(proxy.opened, 0);
      talker.socket.end();
      await talker.becomes('closed');
    }));

test('a body that breaks its chunks resets both ends', () => {
  const ends: Talker[] = [];
  return withProxy(
    scripted((talker) => ends.push(talker)),
    async (_, talk) => {
      const talker = talk();
      talker.say('POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n');
      await until(() => ends.length > 0, 'a connection to the server');
      talker.say('5\r\nhello!\r\n');
      await talker.becomes('reset');
      await until(() => ends[0]?.state === 'reset', 'the server is reset');
      assert.ok(!ends[0]?.text.includes('!'));
    },
  );
});

test('an answer is followed to its end: heads, lengths, chunks, interim ones, none', () => {
  const answers = [
    'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n',
    'HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n',
    'HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n',
    'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n',
  ];
  return withProxy(
    scripted((talker) => {
      talker.socket.on('data', () => {
        for (const byte of answers.shift() ?? '') talker.say(byte);
      });
    }),
    async (proxy, talk) => {
      const talker = talk();
      const methods = ['GET', 'POST', 'GET', 'GET', 'HEAD'];
      talker.say(methods.map((method) => get('/a').replace('GET', method)).join('') + get('/b'));
      await talker.hears('403');
      assert.deepEqual(talker.statuses, [100, 200, 200, 204, 304, 200, 403]);
      assert.equal(proxy.opened, 1);
    },
  );
});

test('behind an answer without end no request passes: it waits for the server to close', () => {
  const heard: string[] = [];
  return withProxy(
    scripted((talker) => {
      talker.socket.once('data', () => talker.say('HTTP/1.0 200 OK\r\n\r\nno length'));
      talker.socket.on('close', () => heard.push(talker.text));
      setTimeout(() => talker.socket.end(), 100);
    }),
    async (_, talk) => {
      const talker = talk();
      talker.say(get('/a/1') + get('/a/2'));
      await talker.becomes('ended');
      assert.deepEqual(talker.statuses, [200]);
      assert.ok(talker.text.endsWith('no length'));
      await until(() => heard.length === 1, 'the server’s end');
      assert.equal(heard[0], get('/a/1'));
    },
  );
});

test('an answer that nobody asked for makes the connection its last', () => {
  const ends: Talker[] = [];
  return withProxy(
    scripted((talker) => {
      ends.push(talker);
      talker.socket.once('data', () =>
        talker.say('HTTP/1.1 204 No\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'),
      );
    }),
    async (_, talk) => {
      const talker = talk();
      talker.say(get('/a/1'));
      await talker.hears('200');
      talker.say(get('/a/2'));
      await talker.becomes('reset');
      assert.equal(ends[0]?.text, get('/a/1'));
    },
    onlyA,
    { idleMs: 200 },
  );
});

test('policy counts from the next request on, and what runs is judged again', () => {
  const ends: Talker[] = [];
  return withProxy(
    scripted((talker) => ends.push(talker)),
    async (proxy, talk) => {
      const [runs, rests] = [talk(), talk()];
      runs.say(get('/a/long'));
      await until(() => ends[0]?.text !== undefined && ends[0].text !== '', 'the request at the server');
      ends[0]?.say('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n');
      await runs.hears('x');
      rests.say(get('/b'));
      await rests.hears('403');
      proxy.take(imageOf([allow(paths('/a', '/c'))]));
      ends[0]?.say('1\r\ny\r\n');
      await runs.hears('y');
      proxy.take(imageOf([allow(paths('/b'))]));
      await runs.becomes('reset');
      await until(() => ends[0]?.state === 'reset', 'the server is reset');
      rests.say(get('/b'));
      await until(() => ends[1]?.text === get('/b'), 'the request at the server');
    },
  );
});

test('what asks for it keeps what runs', () => {
  const ends: Talker[] = [];
  return withProxy(
    scripted((talker) => ends.push(talker)),
    async (proxy, talk) => {
      const talker = talk();
      talker.say(get('/a'));
      await until(() => ends[0]?.text === get('/a'), 'the request at the server');
      proxy.take(imageOf([allow(paths('/b'))], optionFlags.keep));
      ends[0]?.say('HTTP/1.1 204 No\r\n\r\n');
      await talker.hears('204');
      talker.say(get('/a'));
      await talker.hears('403');
    },
  );
});

test('an upgrade passes only where policy allows whatever is said; then it is judged as long as it lives', () => {
  const upgrade = get('/a', 'Connection: upgrade\r\nUpgrade: websocket\r\n');
  const switching = 'HTTP/1.1 101 Switching\r\n\r\n';
  return withProxy(
    scripted((talker) => {
      talker.socket.once('data', () => {
        talker.say(switching);
        talker.socket.on('data', (bytes: Buffer) => talker.say(`heard ${bytes.toString('latin1')}`));
      });
    }),
    async (proxy, talk) => {
      const denied = talk();
      denied.say(upgrade);
      await denied.becomes('ended');
      assert.deepEqual(denied.statuses, [403]);
      const talker = talk();
      talker.say(get('/b'));
      await talker.hears('403');
      proxy.take(imageOf([allow()]));
      talker.say(upgrade);
      await talker.hears(switching);
      talker.say('\0anything');
      await talker.hears('heard \0anything');
      proxy.take(onlyA);
      await talker.becomes('reset');
    },
  );
});

test('where the server is not there, the client is reset', async () => {
  const gone = createServer();
  const port = await listening(gone);
  await new Promise((resolve) => gone.close(resolve));
  const proxy = await TestProxy.start(port, onlyA);
  const talker = new Talker(proxy.connect());
  talker.say(get('/a'));
  await talker.becomes('reset');
  await proxy.close();
});

test('resets and ends are handed on, either way', () => {
  const ends: Talker[] = [];
  return withProxy(
    scripted((talker) => ends.push(talker)),
    async (_, talk) => {
      const [first, second, third] = [talk(), talk(), talk()];
      first.say(get('/a'));
      await until(() => ends.length === 1, 'a connection to the server');
      first.socket.resetAndDestroy();
      await until(() => ends[0]?.state === 'reset', 'the server is reset');
      second.say(get('/a'));
      await until(() => ends.length === 2 && ends[1]?.text !== '', 'a connection to the server');
      ends[1]?.socket.resetAndDestroy();
      await second.becomes('reset');
      third.say(get('/a'));
      third.socket.end();
      await until(() => ends[2]?.state === 'ended', 'the server hears the end');
      ends[2]?.say('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello');
      ends[2]?.socket.end();
      await third.hears('hello');
      await third.becomes('closed');
    },
  );
});

test('a large body passes as fast as the server takes it, and no more of it is held', () => {
  const ends: Socket[] = [];
  const origin = createServer({ pauseOnConnect: true }, (socket) => ends.push(socket));
  return withProxy(origin, async (proxy, talk) => {
    const talker = talk();
    const size = 64 * 1024 * 1024;
    talker.say(`POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: ${size}\r\n\r\n`);
    const piece = Buffer.alloc(65_536, 97);
    let said = 0;
    const more = () => {
      while (said < size) {
        said += piece.length;
        if (!talker.socket.write(piece)) return;
      }
    };
    talker.socket.on('drain', more);
    more();
    await until(() => ends.length === 1, 'a connection to the server');
    let before = -1;
    await until(() => {
      const still = before === said;
      before = said;
      return still && said > 0;
    }, 'the client waits');
    assert.ok(said < size);
    assert.ok(proxy.shared.counts.connections === 1);
    let heard = 0;
    ends[0]?.on('data', (bytes: Buffer) => {
      heard += bytes.length;
    });
    ends[0]?.resume();
    await until(() => heard > size, 'all of it arrives');
  });
});

test('who begins a head and does not end it, or says nothing, is reset', () =>
  withProxy(
    echo(),
    async (proxy, talk) => {
      const [slow, silent] = [talk(), talk()];
      slow.say('GET /a HTTP/1.1\r\n');
      await slow.becomes('reset');
      await silent.becomes('reset');
      assert.equal(proxy.opened, 0);
    },
    onlyA,
    { headMs: 100, idleMs: 200 },
  ));
