import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type BodyState, bodyStart, printChunks, readBody } from '../../../src/policy/http/body.ts';
import { bytesOf, headLimit } from '../../../src/policy/http/canonical.ts';
import { mutated, piecesOf } from '../../support/http.ts';

function chunked(text: string): { state: BodyState; consumed: number } {
  return readBody(bodyStart({ kind: 'chunked' }), bytesOf(text));
}

function readPieces(from: BodyState, pieces: readonly Uint8Array[]): { state: BodyState; consumed: number } {
  let now = { state: from, consumed: 0 };
  for (const piece of pieces) {
    const { state, consumed } = readBody(now.state, piece);
    now = { state, consumed: now.consumed + consumed };
  }
  return now;
}

test('a body of a length ends there', () => {
  const start = bodyStart({ kind: 'length', length: 5n });
  assert.deepEqual(readBody(start, bytesOf('hello, and more')), { state: { at: 'end' }, consumed: 5 });
  assert.deepEqual(readBody(start, bytesOf('hel')), { state: { at: 'data', left: 2n, chunk: false }, consumed: 3 });
  assert.deepEqual(bodyStart({ kind: 'length', length: 0n }), { at: 'end' });
  assert.deepEqual(bodyStart({ kind: 'none' }), { at: 'end' });
});

test('a body may be larger than four gigabytes', () => {
  const start = bodyStart({ kind: 'length', length: 2n ** 40n });
  assert.deepEqual(readBody(start, bytesOf('x')).state, { at: 'data', left: 2n ** 40n - 1n, chunk: false });
});

test('chunks end with the one of size 0 and its trailers', () => {
  const text = '5\r\nhello\r\nA;x="y"\r\n0123456789\r\n000\r\nX-Sum: 1\r\n\r\n';
  assert.deepEqual(chunked(`${text}GET /`), { state: { at: 'end' }, consumed: text.length });
  assert.deepEqual(chunked('0\r\n\r\n').state, { at: 'end' });
});

const broken: readonly (readonly [name: string, text: string])[] = [
  ['no size', '\r\n'],
  ['a size with a sign', '+5\r\nhello\r\n'],
  ['a size with 0x', '0x5\r\nhello\r\n'],
  ['a size behind a space', ' 5\r\nhello\r\n'],
  ['a size before a space', '5 \r\nhello\r\n'],
  ['a size of seventeen digits', '00000000000000005\r\nhello\r\n'],
  ['a size of 2^63', '8000000000000000\r\n'],
  ['a bare line feed behind a size', '5\nhello\r\n'],
  ['a bare carriage return in an extension', '5;a\rb\r\nhello\r\n'],
  ['a control character in an extension', '5;a\0\r\nhello\r\n'],
  ['an extension without end', `5;${'a'.repeat(300)}\r\nhello\r\n`],
  ['a chunk longer than its size', '5\r\nhello!\r\n'],
  ['a line feed behind a chunk', '5\r\nhello\n'],
  ['a length among the trailers', '0\r\nContent-Length: 5\r\n\r\n'],
  ['a coding among the trailers', '0\r\ntransfer-encoding: chunked\r\n\r\n'],
  ['a Host among the trailers', '0\r\nHost: b\r\n\r\n'],
  ['a folded trailer', '0\r\nX: a\r\n b\r\n\r\n'],
  ['trailers without end', `0\r\n${'X: abcdefgh\r\n'.repeat(headLimit / 8)}`],
];

for (const [name, text] of broken)
  test(`broken: ${name}`, () => {
    assert.equal(chunked(text).state.at, 'broken');
  });

test('trailers have a limit, to the byte', () => {
  const trailers = (size: number): string => `0\r\nX: ${'a'.repeat(size - 7)}\r\n\r\n`;
  assert.equal(chunked(trailers(headLimit)).state.at, 'end');
  assert.equal(chunked(trailers(headLimit + 1)).state.at, 'broken');
});

const chunksArbitrary = fc.array(fc.uint8Array({ minLength: 1, maxLength: 20 }), { maxLength: 4 });

test('chunks that are printed are read', () => {
  fc.assert(
    fc.property(chunksArbitrary, fc.uint8Array(), (chunks, after) => {
      const body = printChunks(chunks, [['x-sum', '1']]);
      const { state, consumed } = readBody(bodyStart({ kind: 'chunked' }), Uint8Array.of(...body, ...after));
      assert.deepEqual({ state, consumed }, { state: { at: 'end' }, consumed: body.length });
    }),
  );
});

test('however a body is cut, it is read as the same', () => {
  const texts = mutated(chunksArbitrary.map((chunks) => String.fromCharCode(...printChunks(chunks, [['x', 'y']]))));
  fc.assert(
    fc.property(texts, fc.array(fc.nat()), (text, cuts) => {
      const bytes = bytesOf(text);
      assert.deepEqual(readPieces(bodyStart({ kind: 'chunked' }), piecesOf(bytes, cuts)), chunked(text));
    }),
  );
});
