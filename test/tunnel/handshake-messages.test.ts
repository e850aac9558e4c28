import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { HandshakeError } from '../../src/tunnel/handshake/error.ts';
import { LineReader, longestLine } from '../../src/tunnel/handshake/lines.ts';
import {
  decodeMessage,
  driverLifetimes,
  encodeMessage,
  type MessageType,
  type Offer,
  protocolVersion,
  shorter,
  transform,
} from '../../src/tunnel/handshake/messages.ts';
import { ip } from './arbitraries.ts';

const types: MessageType[] = ['offer', 'answer', 'installed', 'noted', 'unknown-spi'];

const anOffer: fc.Arbitrary<Offer> = fc.record(
  {
    type: fc.constant('offer' as const),
    version: fc.constant(protocolVersion),
    spi: fc.integer({ min: 256, max: 0xffff_ffff }),
    selectors: fc.array(fc.record({ initiator: ip, responder: ip }, { noNullPrototype: true }), {
      minLength: 1,
      maxLength: 2,
    }),
    transform: fc.constant(transform),
    encapsulation: fc.constant('udp' as const),
    port: fc.integer({ min: 1, max: 65_535 }),
    lifetime: fc.record(
      {
        seconds: fc.integer({ min: 1, max: 86_400 }),
        bytes: fc.integer({ min: 1 }),
        packets: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
      },
      { requiredKeys: ['seconds'], noNullPrototype: true },
    ),
    group: fc.constantFrom('X25519', 'X25519MLKEM768'),
  },
  {
    requiredKeys: ['type', 'version', 'spi', 'selectors', 'transform', 'encapsulation', 'port', 'lifetime'],
    noNullPrototype: true,
  },
);

/** Decoding either gives a message or refuses with a reason; nothing else ever comes out. */
function decode(type: MessageType, line: string): unknown {
  try {
    return decodeMessage(type, line);
  } catch (error) {
    assert.ok(error instanceof HandshakeError, String(error));
    return error;
  }
}

test('a message that is sent is read as it was meant, and only where it is due', () => {
  fc.assert(
    fc.property(anOffer, (message) => {
      const line = encodeMessage(message);
      assert.ok(Buffer.byteLength(line) < longestLine && !line.includes('\n'));
      assert.deepEqual(decodeMessage('offer', line), message);
      for (const type of types) if (type !== 'offer') assert.ok(decode(type, line) instanceof HandshakeError);
    }),
  );
});

test('nothing that is not a message is taken for one', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...types),
      fc.oneof(
        fc.string(),
        fc.json(),
        fc.object().map((o) => JSON.stringify(o)),
      ),
      (type, line) => {
        const result = decode(type, line);
        if (!(result instanceof HandshakeError)) assert.equal(JSON.stringify(result), JSON.stringify(JSON.parse(line)));
      },
    ),
  );
  // One field of a proper offer gone, doubled in kind, or too much.
  fc.assert(
    fc.property(
      anOffer,
      fc.constantFrom('type', 'version', 'spi', 'selectors', 'transform', 'encapsulation', 'port', 'lifetime'),
      fc.jsonValue(),
      (message, key, value) => {
        const { [key]: original, ...rest } = { ...message } as Record<string, unknown>;
        assert.ok(decode('offer', JSON.stringify(rest)) instanceof HandshakeError);
        assert.ok(decode('offer', JSON.stringify({ ...message, extra: value })) instanceof HandshakeError);
        if (typeof value !== typeof original)
          assert.ok(decode('offer', JSON.stringify({ ...message, [key]: value })) instanceof HandshakeError);
      },
    ),
  );
});

test('a refusal is read wherever a message is due, and its words are made harmless', () => {
  for (const type of types) {
    const line = encodeMessage({ type: 'refused', code: 'wrong-address', detail: 'no\u001b[2Jway\u0007' });
    const error = decode(type, line);
    assert.ok(error instanceof HandshakeError);
    assert.equal(error.code, 'wrong-address');
    assert.equal(error.by, 'peer');
    assert.equal(error.message, 'the peer refused: no·[2Jway·');
    const newer = decode(type, encodeMessage({ type: 'refused', code: 'of-the-future', detail: '' }));
    assert.ok(newer instanceof HandshakeError && newer.code === 'bad-message' && newer.by === 'peer');
  }
});

test('lines come out as they went in, however the stream is cut', () => {
  const line = fc
    .string({ unit: 'binary', maxLength: 200 })
    .filter((text) => !text.includes('\n') && text.isWellFormed());
  fc.assert(
    fc.property(
      fc.array(line, { maxLength: 20 }),
      fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1 }),
      (lines, cuts) => {
        const bytes = Buffer.from(lines.map((text) => `${text}\n`).join(''));
        const reader = new LineReader();
        const out: string[] = [];
        for (let at = 0, i = 0; at < bytes.length; i++) {
          const size = cuts[i % cuts.length] ?? 1;
          out.push(...reader.push(bytes.subarray(at, at + size)));
          at += size;
        }
        assert.deepEqual(out, lines);
      },
    ),
  );
});

test('a reader holds a bounded number of bytes of anything', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 3000 }), { maxLength: 10 }), (chunks) => {
      const reader = new LineReader();
      try {
        for (const chunk of chunks) for (const line of reader.push(chunk)) assert.ok(line.length <= longestLine);
      } catch (error) {
        assert.ok(error instanceof HandshakeError && error.code === 'bad-message');
        return;
      }
      const bytes = Buffer.concat(chunks);
      assert.ok(bytes.length - bytes.lastIndexOf(0x0a) - 1 <= longestLine);
    }),
  );
  const read = (bytes: Buffer, longest?: number) => [...new LineReader(longest).push(bytes)];
  assert.throws(() => read(Buffer.alloc(longestLine + 1, 0x20)), { code: 'bad-message' });
  assert.equal(read(Buffer.from(`${' '.repeat(longestLine)}\n`)).length, 1);
  assert.throws(() => read(Buffer.from(`${' '.repeat(100)}\n`), 99), { code: 'bad-message' });
  assert.throws(() => read(Buffer.from([0xc3, 0x28, 0x0a])), { code: 'bad-message' });
});

test('the shorter limit holds for both; the side that began renews first', () => {
  assert.deepEqual(shorter({ seconds: 10, bytes: 5 }, { seconds: 20, packets: 7 }), {
    seconds: 10,
    bytes: 5,
    packets: 7,
  });
  assert.deepEqual(shorter({ seconds: 30, bytes: 5, packets: 9 }, { seconds: 20, bytes: 4, packets: 10 }), {
    seconds: 20,
    bytes: 4,
    packets: 9,
  });
  const limits = { seconds: 1, bytes: 1000, packets: 100 };
  assert.deepEqual(driverLifetimes(limits, true), {
    hardBytes: 1000,
    softBytes: 800,
    hardPackets: 100,
    softPackets: 80,
  });
  assert.deepEqual(driverLifetimes(limits, false), {
    hardBytes: 1000,
    softBytes: 900,
    hardPackets: 100,
    softPackets: 90,
  });
  assert.deepEqual(driverLifetimes({ seconds: 1 }, true), {});
});
