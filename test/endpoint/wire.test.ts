import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { encodeFrame, FrameReader } from '../../src/endpoint/wire.ts';

const limit = 65_536;

/** Feeds a frame in pieces of these sizes, the last one to the end. @returns What came out, and after which piece. */
function feed(frame: Buffer, sizes: readonly number[]): unknown[] {
  const reader = new FrameReader(limit);
  const out: unknown[] = [];
  let at = 0;
  for (const size of [...sizes, frame.length]) {
    if (at >= frame.length) break;
    const answer = reader.push(frame.subarray(at, at + size));
    at += size;
    if (answer !== undefined) out.push(answer.message);
  }
  return out;
}

test('a message arrives whole, in whatever pieces', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.array(fc.integer({ min: 1, max: 9 })), (message, sizes) => {
      const plain: unknown = JSON.parse(JSON.stringify(message));
      assert.deepEqual(feed(encodeFrame(plain), sizes), [plain]);
    }),
  );
});

test('the length is big-endian', () => {
  assert.deepEqual([...encodeFrame({})], [0, 0, 0, 2, 0x7b, 0x7d]);
});

test('too long, too much, not JSON, not UTF-8: refused', () => {
  const tooLong = Buffer.alloc(4);
  tooLong.writeUInt32BE(limit + 1);
  assert.throws(() => new FrameReader(limit).push(tooLong), RangeError);
  assert.throws(() => new FrameReader(limit).push(Buffer.concat([encodeFrame({}), Buffer.of(0)])), RangeError);
  assert.throws(() => new FrameReader(limit).push(Buffer.of(0, 0, 0, 1, 0x7b)), SyntaxError);
  assert.throws(() => new FrameReader(limit).push(Buffer.of(0, 0, 0, 3, 0x22, 0xff, 0x22)), SyntaxError);
});

test('random bytes give a message, an error, or wait for more; nothing else', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      try {
        new FrameReader(limit).push(Buffer.from(bytes));
      } catch (error) {
        assert.ok(error instanceof RangeError || error instanceof SyntaxError);
      }
    }),
    { numRuns: 2000 },
  );
});
