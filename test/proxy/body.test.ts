import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { bodyStart, printChunks, readBody } from '../../src/policy/http/body.ts';
import { bytesOf, chunkLineLimit, headLimit } from '../../src/policy/http/canonical.ts';
import type { Framing } from '../../src/policy/http/parse.ts';
import { BodyReader } from '../../src/proxy/http1/body.ts';
import { mutated, piecesOf } from '../support/http.ts';

/** What reading says after each piece: how much of it was the body's, and whether there is more. */
function byReader(framing: Framing, pieces: readonly Uint8Array[]): string[] {
  const reader = new BodyReader(framing);
  return pieces.map((piece) => {
    const consumed = reader.read(piece);
    if (reader.broken) return 'broken';
    return reader.ended ? `end ${consumed}` : `more ${consumed}`;
  });
}

function byReference(framing: Framing, pieces: readonly Uint8Array[]): string[] {
  let state = bodyStart(framing);
  return pieces.map((piece) => {
    const answer = readBody(state, piece);
    state = answer.state;
    if (state.at === 'broken') return 'broken';
    return state.at === 'end' ? `end ${answer.consumed}` : `more ${answer.consumed}`;
  });
}

const chunks = fc.array(fc.uint8Array({ minLength: 1, maxLength: 20 }), { maxLength: 4 });
const bodies = mutated(
  fc
    .tuple(chunks, fc.constantFrom('', ';a=b', ';\t"x"'), fc.constantFrom('', 'x: y', 'Host: b', 'content-length: 1'))
    .map(([parts, extension, trailer]) => {
      const text = String.fromCharCode(...printChunks(parts, trailer === '' ? [] : [['x-sum', '1']]));
      return text.replace('\r\n', `${extension}\r\n`).replace('x-sum: 1', trailer);
    }),
);
const framings: fc.Arbitrary<Framing> = fc.oneof(
  { weight: 8, arbitrary: fc.constant<Framing>({ kind: 'chunked' }) },
  fc.bigInt({ min: 0n, max: 60n }).map((length): Framing => ({ kind: 'length', length })),
  fc.constant<Framing>({ kind: 'none' }),
);

test('a body is read as the reference reads it, however it is cut and whatever is wrong with it', () => {
  fc.assert(
    fc.property(framings, bodies, fc.array(fc.nat()), (framing, text, cuts) => {
      const pieces = piecesOf(bytesOf(text), cuts);
      assert.deepEqual(byReader(framing, pieces), byReference(framing, pieces));
    }),
    { numRuns: 5000 },
  );
});

test('lines at their limits are read as the reference reads them', () => {
  const cases = [chunkLineLimit - 1, chunkLineLimit, chunkLineLimit + 1].map((size) => `5;${'a'.repeat(size - 2)}\r\n`);
  for (const size of [headLimit - 1, headLimit, headLimit + 1]) {
    cases.push(`0\r\nX: ${'a'.repeat(size - 7)}\r\n\r\n`);
    cases.push(`0\r\nX: ${'a'.repeat(size - 3)}`);
  }
  for (const text of cases)
    for (const cut of [text.length, text.length - 1, text.length - 2, 3]) {
      const pieces = piecesOf(bytesOf(text), [cut]);
      assert.deepEqual(
        byReader({ kind: 'chunked' }, pieces),
        byReference({ kind: 'chunked' }, pieces),
        text.slice(0, 9),
      );
    }
});
