import assert from 'node:assert/strict';
import { connect, constants } from 'node:http2';
import { createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import { allow, imageOf, listening, paths, TestProxy, until } from './harness.ts';

/** A server that says what it likes: whatever that is, the proxy lives, and other connections go on. */

const onlyA = imageOf([allow(paths('/a'))]);

/** A frame (RFC 9113 section 4.1). */
function frame(type: number, flags: number, stream: number, payload: string): string {
  const { length } = payload;
  const head = [length >> 16, (length >> 8) & 255, length & 255, type, flags, 0, 0, stream >> 8, stream & 255];
  return String.fromCharCode(...head) + payload;
}
const settings = frame(4, 0, 0, '') + frame(4, 1, 0, '');
/** A literal header, not indexed. */
const header = (name: string, value: string): string =>
  `\0${String.fromCharCode(name.length)}${name}${String.fromCharCode(value.length)}${value}`;
const status = (code: string): string => `\x08\x03${code}`;
const headers = (block: string, flags = 4): string => frame(1, flags, 1, block);

const cases: readonly (readonly [name: string, says: string])[] = [
  ['101', headers(status('101'))],
  ['a status that is none', headers(status('1x1'))],
  ['100 after 200', headers(status('200')) + headers(status('100'))],
  ['103 with the end of the stream', headers(status('103'), 5)],
  ['204 with a body', headers(status('204')) + frame(0, 1, 1, 'a body')],
  ['304 with a body', headers(status('304')) + frame(0, 0, 1, 'a body') + frame(0, 1, 1, 'more')],
  ['205 with a body', headers(status('205')) + frame(0, 1, 1, 'a body')],
  ['a header about the connection', headers(status('200') + header('connection', 'close'))],
  ['a name in capitals', headers(status('200') + header('X', 'y'))],
  ['a line feed in a value', headers(status('200') + header('x', 'a\nb'))],
  ['two statuses', headers(status('200') + status('201'))],
  ['no status', headers(header('x', 'y'))],
  ['a pseudo-header of a request', headers(status('200') + header(':path', '/'))],
  ['two lengths', headers(status('200') + header('content-length', '1') + header('content-length', '2'))],
  ['a length that is not the data’s', headers(status('200') + header('content-length', '1')) + frame(0, 1, 1, 'much')],
  ['a pseudo-header in trailers', headers(status('200')) + headers(header(':status', '200'), 5)],
  ['trailers without an end', headers(status('200')) + headers(header('x', 'y'), 4)],
  ['many answers', headers(status('200'), 5) + headers(status('200'), 5) + headers(status('200'), 5)],
  [
    'two dates, and several of what may stand once',
    headers(
      status('200') +
        header('date', 'a') +
        header('date', 'b') +
        header('content-type', 'a') +
        header('content-type', 'b'),
      5,
    ),
  ],
  ['a push', frame(5, 4, 1, '\0\0\0\x02\x82\x86')],
  ['a reset', frame(3, 0, 1, '\0\0\0\x0b')],
  ['a reset of an unknown code', frame(3, 0, 1, '\x7f\xff\xff\xff')],
  ['an orderly GOAWAY for less', frame(7, 0, 0, '\0\0\0\0\0\0\0\0')],
  ['GOAWAY of a code', frame(7, 0, 0, '\0\0\0\x01\0\0\0\x0bwords')],
  ['GOAWAY of an unknown code', frame(7, 0, 0, '\0\0\0\x01\x7f\xff\xff\xff')],
  ['SETTINGS that are wrong', frame(4, 0, 0, '\0\x04\xff\xff\xff\xff')],
  ['SETTINGS that leave no streams', frame(4, 0, 0, '\0\x03\0\0\0\0')],
  ['a window beyond its limit', frame(8, 0, 0, '\x7f\xff\xff\xff') + frame(8, 0, 1, '\x7f\xff\xff\xff').repeat(2)],
  ['DATA before an answer', frame(0, 0, 1, 'early')],
  ['frames of unknown types', frame(99, 255, 1, 'x').repeat(1000)],
  ['too large a frame', `\xff\xff\xff\0\0\0\0\0\x01${'x'.repeat(40_000)}`],
  [
    'a header list that is a bomb',
    headers(`${status('200')}\x40\x01x\x7f\x81\x1e${'a'.repeat(4000)}${'\xbe'.repeat(8000)}`),
  ],
  ['HTTP/1', 'HTTP/1.1 400 Bad Request\r\n\r\n'],
];

async function hears(says: string, whole: boolean): Promise<{ proxy: TestProxy; state: string }> {
  const sockets: Socket[] = [];
  const origin = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
    socket.once('data', () => {
      const bytes = Buffer.from((whole ? settings : '') + says, 'latin1');
      for (let at = 0; at < bytes.length; at += 1000) socket.write(bytes.subarray(at, at + 1000));
    });
  });
  const proxy = await TestProxy.start(await listening(origin), onlyA);
  const session = connect('http://shop', { createConnection: () => proxy.connect(false) });
  session.on('error', () => {});
  const stream = session.request({ ':path': '/a', ':method': 'POST' }, { endStream: false });
  let state = 'open';
  stream.on('error', () => {});
  stream.on('response', () => {
    state = 'answered';
  });
  stream.on('close', () => {
    state = `closed ${stream.rstCode}`;
  });
  stream.on('aborted', () => {});
  stream.resume();
  stream.write('a body');
  try {
    // The server has said all: what it is worth shows within a few turns, or it is waited for.
    await until(() => sockets.length > 0 && sockets[0]?.bytesWritten !== 0, 'the server speaks');
    for (let turns = 0; turns < 40 && !state.startsWith('closed'); turns++) await new Promise((r) => setTimeout(r, 5));
    const other = connect('http://shop', { createConnection: () => proxy.connect(false) });
    other.on('error', () => {});
    const denied = other.request({ ':path': '/b' });
    const heard = await new Promise((resolve) => denied.once('response', (said) => resolve(said[':status'])));
    assert.equal(heard, 403);
    other.destroy();
    return { proxy, state };
  } finally {
    session.destroy();
    await proxy.close();
    for (const socket of sockets) socket.destroy();
    origin.close();
  }
}

for (const [name, says] of cases)
  test(`a server may say ${name}`, async () => {
    const { proxy } = await hears(says, true);
    assert.equal(proxy.shared.counts.connections, 0);
    await until(() => proxy.shared.counts.streams === 0, 'streams end');
  });

test('a server may say anything', async () => {
  let seed = 1;
  const random = (below: number): number => {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((seed / 2_147_483_648) * below);
  };
  for (let round = 0; round < 60; round++) {
    const frames = Array.from({ length: 1 + random(6) }, () => {
      const block = [status(['200', '103', '204'][random(3)] ?? ''), header('x', 'y'), header('grpc-status', '0')];
      const payload =
        random(2) === 0
          ? block.slice(random(2), 1 + random(3)).join('')
          : String.fromCharCode(...Array.from({ length: random(30) }, () => random(256)));
      return frame(random(10), random(256), random(3), payload);
    });
    const { proxy } = await hears(frames.join(''), random(4) > 0);
    await until(() => proxy.shared.counts.streams === 0, 'streams end');
  }
});

test('what a server refuses is refused', async () => {
  const { state } = await hears(frame(3, 0, 1, '\0\0\0\x07'), true);
  assert.equal(state, `closed ${constants.NGHTTP2_REFUSED_STREAM}`);
});
