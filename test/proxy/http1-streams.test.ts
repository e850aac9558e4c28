import assert from 'node:assert/strict';
import { createServer, type Socket } from 'node:net';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { bodyStart, printChunks, readBody } from '../../src/policy/http/body.ts';
import { bytesOf, textOf } from '../../src/policy/http/canonical.ts';
import { parseHead } from '../../src/policy/http/parse.ts';
import { matchesAnyRequest } from '../../src/policy/request.ts';
import { headArbitrary, mutated, piecesOf } from '../support/http.ts';
import { allow, imageOf, listening, paths, Talker, TestProxy, until } from './harness.ts';

/**
 * Whole streams of requests through the proxy, right and nearly right, in pieces: what the server gets, and what the client
 * is answered, is what the reference parsers and the reference's matching say. Nothing that they refuse passes.
 */

const runs = Number(process.env.MYELIN_HTTP_RUNS ?? 400);
const asked = paths('/a');

interface Expected {
  /** All that the server gets. */
  readonly passed: string;
  /** What it may get besides: of a request whose body then breaks. */
  readonly perhaps: string;
  readonly statuses: readonly number[];
}

function expected(bytes: Uint8Array): Expected {
  let passed = '';
  const statuses: number[] = [];
  for (let at = 0; ; ) {
    const head = parseHead(bytes.subarray(at));
    if (head.kind === 'more') return { passed, perhaps: '', statuses };
    if (head.kind === 'refused')
      return { passed, perhaps: '', statuses: [...statuses, head.reason === 'HTTP_MALFORMED' ? 400 : 431] };
    const allowed = !head.upgrade && matchesAnyRequest(head.request, [asked]);
    const closes = head.request.headers.some(([name, value]) => name === 'connection' && value === 'close');
    const begin = at + head.length;
    const { state, consumed } = readBody(bodyStart(head.framing), bytes.subarray(begin));
    const text = textOf(bytes.subarray(at, begin + consumed));
    if (!allowed) statuses.push(403);
    if (!allowed && (head.upgrade || head.expect || head.version === '1.0' || closes))
      return { passed, perhaps: '', statuses };
    if (state.at === 'broken') return { passed, perhaps: allowed ? text : '', statuses };
    if (allowed) passed += text;
    if (state.at !== 'end') return { passed, perhaps: '', statuses };
    if (allowed) statuses.push(200);
    at = begin + consumed;
  }
}

/** Answers each request when it is whole, by the reference; says all that it got when the connection ends. */
function serve(socket: Socket, onEnd: (text: string) => void): void {
  let text = '';
  let left = Buffer.alloc(0);
  socket.on('error', () => {});
  socket.on('data', (bytes: Buffer) => {
    text += bytes.toString('latin1');
    left = Buffer.concat([left, bytes]);
    for (;;) {
      const head = parseHead(left);
      if (head.kind !== 'head') return;
      const { state, consumed } = readBody(bodyStart(head.framing), left.subarray(head.length));
      if (state.at !== 'end') return;
      left = left.subarray(head.length + consumed);
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
    }
  });
  socket.on('end', () => socket.end());
  socket.on('close', () => onEnd(text));
}

/** What the server got, by the port that it got it from. */
const ends = new Map<number, string>();
const origin = createServer({ allowHalfOpen: true }, (socket) => {
  const { remotePort = 0 } = socket;
  ends.delete(remotePort);
  serve(socket, (text) => ends.set(remotePort, text));
});
let proxy: TestProxy;

before(async () => {
  proxy = await TestProxy.start(await listening(origin), imageOf([allow(asked)]));
});
after(async () => {
  await proxy.close();
  origin.close();
});

const bodies = fc.oneof(
  fc.constant(''),
  fc.constant('hello'),
  fc
    .array(fc.uint8Array({ minLength: 1, maxLength: 9 }), { maxLength: 3 })
    .map((chunks) => textOf(printChunks(chunks))),
);
/** With the body that its head says, mostly. */
const odd = fc.tuple(headArbitrary, bodies).map(([head, body]) => {
  const text = head.replace(/ (?:\/B|\/admin|\/\.)/, ' /a');
  if (/^content-length: ?5/im.test(text)) return `${text}hello`;
  if (/^transfer-encoding: chunked/im.test(text)) return `${text}3\r\nabc\r\n0\r\n\r\n`;
  return /^(?:content-length|transfer-encoding)/im.test(text) ? text + body : text;
});
const plain = fc
  .tuple(
    fc.constantFrom('GET', 'POST', 'HEAD'),
    fc.constantFrom('/a', '/a/%62', '/b', '/a/../b', '/x/../a'),
    fc.constantFrom(
      '\r\n',
      'Content-Length: 5\r\n\r\nhello',
      'Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n',
      'Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n',
    ),
  )
  .map(([method, target, rest]) => `${method} ${target} HTTP/1.1\r\nHost: a\r\n${rest}`);
const requests = fc.oneof({ weight: 4, arbitrary: plain }, { weight: 1, arbitrary: odd });
const streams = mutated(fc.array(requests, { minLength: 1, maxLength: 4 }).map((parts) => parts.join('')));

async function run(
  bytes: Uint8Array,
  cuts: readonly number[],
): Promise<{ passed: string; statuses: number[]; reset: boolean }> {
  proxy.lastPort = undefined;
  const openedBefore = proxy.opened;
  const talker = new Talker(proxy.connect());
  for (const piece of piecesOf(bytes, cuts)) {
    talker.socket.write(piece);
    await new Promise((resolve) => setImmediate(resolve));
  }
  talker.socket.end();
  await talker.becomes('closed', 'reset');
  const reset = talker.state === 'reset';
  // One that was reset before the server took it is nothing to it.
  for (let turns = 0; reset && turns < 5 && ends.get(proxy.lastPort ?? 0) === undefined; turns++)
    await new Promise((resolve) => setTimeout(resolve, 2));
  if (!reset && proxy.opened > openedBefore) await until(() => ends.has(proxy.lastPort ?? 0), 'the server’s end');
  return { passed: ends.get(proxy.lastPort ?? 0) ?? '', statuses: talker.statuses, reset };
}

test('streams of requests pass as the reference reads them, however they are cut and whatever is wrong with them', async () => {
  await fc.assert(
    fc.asyncProperty(streams, fc.array(fc.nat(), { maxLength: 4 }), async (text, cuts) => {
      const bytes = bytesOf(text);
      // What no method begins is no HTTP, and is not read as such.
      if (!/^[-A-Z_]/.test(text)) return;
      const want = expected(bytes);
      const got = await run(bytes, cuts);
      if (got.reset) {
        // Bytes that were under way when the connection was reset may be lost, but none may be more.
        assert.ok((want.passed + want.perhaps).startsWith(got.passed), JSON.stringify({ text, want, got }));
        return;
      }
      assert.deepEqual({ ...got, reset: false }, { passed: want.passed, statuses: want.statuses, reset: false });
    }),
    { numRuns: runs },
  );
});
