import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { familyOf, type IpAddress } from '../../src/model/address.ts';
import { HandshakeError } from '../../src/tunnel/handshake/error.ts';
import { FrameReader, FrameWriter } from '../../src/tunnel/handshake/frames.ts';
import {
  decodeChain,
  decodeHello,
  decodePair,
  encodeChain,
  encodedInstalled,
  encodeHello,
  encodePair,
  encodeRefused,
  type PairMessage,
  type PairTerms,
} from '../../src/tunnel/handshake/pair-messages.ts';
import { ip } from './arbitraries.ts';

interface Frame {
  readonly id: number;
  readonly type: number;
  readonly body: Buffer;
}

/** What a reader makes of the chunks. */
function frames(...chunks: readonly Uint8Array[]): Frame[] {
  const reader = new FrameReader();
  const found: Frame[] = [];
  for (const chunk of chunks) {
    reader.push(Buffer.from(chunk));
    while (
      reader.next((id, type, bytes, start, end) => {
        found.push({ id, type, body: Buffer.from(bytes.subarray(start, end)) });
      })
    );
  }
  return found;
}

function wire(...messages: readonly string[]): Buffer {
  const writer = new FrameWriter();
  for (const [i, message] of messages.entries()) writer.add(i + 1, message);
  return Buffer.from(writer.take() ?? []);
}

/** As a peer reads it. @throws {HandshakeError} */
function read<T>(message: string, decode: (type: number, bytes: Buffer, start: number, end: number) => T): T {
  const bytes = Buffer.concat([Buffer.from('not its own'), Buffer.from(message, 'latin1'), Buffer.from('nor this')]);
  const start = 12;
  return decode(message.charCodeAt(0), bytes, start, start - 1 + message.length);
}

/** Decoding either gives a message or refuses with a reason; nothing else ever comes out. */
function attempt(message: string): PairMessage | HandshakeError {
  try {
    return read(message, decodePair);
  } catch (error) {
    assert.ok(error instanceof HandshakeError, String(error));
    return error;
  }
}

const bytes32 = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => Buffer.from(bytes));
const isOfFamilies = ({ initiator, responder }: { initiator: IpAddress; responder: IpAddress }) =>
  familyOf(initiator) === familyOf(responder);
const someTerms: fc.Arbitrary<PairTerms> = fc.record({
  spi: fc.integer({ min: 256, max: 0xffff_ffff }),
  port: fc.integer({ min: 1, max: 65_535 }),
  lifetime: fc.record({
    seconds: fc.integer({ min: 1, max: 86_400 }),
    bytes: fc.option(fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }), { nil: undefined }),
    packets: fc.option(fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }), { nil: undefined }),
  }),
  svid: bytes32.map((bytes) => bytes.toString('latin1')),
  selectors: fc.array(fc.record({ initiator: ip, responder: ip }).filter(isOfFamilies), {
    minLength: 1,
    maxLength: 2,
  }),
});
const uid = fc.stringMatching(/^[!-~]{1,63}$/);

test('an offer and an answer are read as they were meant', () => {
  fc.assert(
    fc.property(someTerms, bytes32, uid, (terms, nonce, to) => {
      const offer = encodePair(terms, nonce, to);
      const answer = encodePair(terms, nonce);
      const plain = (value: unknown) => JSON.parse(JSON.stringify(value));
      assert.deepEqual(plain(read(offer, decodePair)), plain({ type: 'pair-offer', ...terms, to, encoded: offer }));
      assert.deepEqual(plain(read(answer, decodePair)), plain({ type: 'pair-answer', ...terms, encoded: answer }));
    }),
  );
  assert.deepEqual(read(encodedInstalled, decodePair), { type: 'installed' });
});

test('nothing that is not a message is taken for one', () => {
  fc.assert(
    fc.property(
      someTerms,
      bytes32,
      fc.option(uid, { nil: undefined }),
      fc.nat(),
      fc.integer({ min: 1, max: 255 }),
      (terms, nonce, to, where, change) => {
        const proper = encodePair(terms, nonce, to);
        for (let length = 1; length < proper.length; length++)
          assert.ok(attempt(proper.slice(0, length)) instanceof HandshakeError);
        assert.ok(attempt(`${proper}x`) instanceof HandshakeError);
        // Another byte is another message, to the byte, or none.
        const at = where % proper.length;
        const other = proper.slice(0, at) + String.fromCharCode(proper.charCodeAt(at) ^ change) + proper.slice(at + 1);
        const result = attempt(other);
        if (!(result instanceof HandshakeError) && result.type !== 'installed') {
          const said = Buffer.from(other.slice(61, 93), 'latin1');
          const again = encodePair(result, said, result.type === 'pair-offer' ? result.to : undefined);
          assert.equal(again, other);
        }
      },
    ),
  );
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 400 }), (bytes) => {
      attempt(Buffer.from(bytes).toString('latin1'));
    }),
  );
});

test('what is out of range is refused', () => {
  const [terms] = fc.sample(
    someTerms.filter(({ selectors }) => selectors.length === 1),
    1,
  );
  assert.ok(terms);
  const changes: Partial<PairTerms>[] = [
    { spi: 255 },
    { port: 0 },
    { lifetime: { seconds: 0 } },
    { lifetime: { seconds: 86_401 } },
    { lifetime: { seconds: 1, bytes: 2 ** 53 } },
    { selectors: [] },
    { selectors: [...terms.selectors, ...terms.selectors, ...terms.selectors] },
  ];
  for (const change of changes) {
    const message = encodePair({ ...terms, ...change }, Buffer.alloc(32));
    assert.ok(attempt(message) instanceof HandshakeError, JSON.stringify(change));
  }
  for (const to of ['', 'x'.repeat(64)])
    assert.ok(attempt(encodePair(terms, Buffer.alloc(32), to)) instanceof HandshakeError);
  // An IPv4 address has one form: not that of an IPv6 address too.
  const mapped = Buffer.from(encodePair(terms, Buffer.alloc(32)), 'latin1').subarray(0, 93 + 1);
  const address = Buffer.from('00000000000000000000ffff0af40001', 'hex');
  const bad = Buffer.concat([mapped, Buffer.of(6), address, address]).toString('latin1');
  assert.ok(attempt(bad) instanceof HandshakeError);
});

test('a refusal is read wherever a message is due, and its words are made harmless', () => {
  const said = attempt(encodeRefused(new HandshakeError('wrong-address', 'no\u001b[2Jway\u0007 – so')));
  assert.ok(said instanceof HandshakeError);
  assert.equal(said.code, 'wrong-address');
  assert.equal(said.by, 'peer');
  assert.equal(said.message, 'the peer refused: no·[2Jway· – so');
  const newer = attempt('\x06\x0dof-the-future\0\0');
  assert.ok(newer instanceof HandshakeError && newer.code === 'bad-message' && newer.by === 'peer');
  // However many words, in whatever script.
  const long = attempt(encodeRefused(new HandshakeError('internal', '漢'.repeat(5000))));
  assert.ok(long instanceof HandshakeError && long.by === 'peer' && long.code === 'internal');
  for (const bad of ['\x06', '\x06\x05abc', '\x06\x01a\0\x05x', '\x06\x01a\0\0x', `\x06A${'a'.repeat(65)}\0\0`]) {
    const error = attempt(bad);
    assert.ok(error instanceof HandshakeError && error.by === 'us');
  }
});

test('greetings and chains are read as they were meant, and nothing else is taken for them', () => {
  for (const group of ['X25519MLKEM768', undefined])
    assert.deepEqual(read(encodeHello(group), decodeHello), { type: 'hello', group });
  assert.throws(() => read('\x01\x02\0', decodeHello), { code: 'version' });
  for (const bad of ['\x02\x01\0', '\x01', '\x01\x01', '\x01\x01\x02x', '\x01\x01\x01xx', '\x01\x01\x01\n'])
    assert.throws(() => read(bad, decodeHello), { code: 'bad-message' });
  const chain = [Buffer.from('leaf'), Buffer.alloc(3000, 7)];
  assert.deepEqual(read(encodeChain(chain), decodeChain), { type: 'chain', presented: chain });
  const proper = encodeChain(chain);
  for (const bad of [
    '\x02',
    '\x02\0',
    '\x02\x05',
    '\x02\x01\0\0',
    `${proper}x`,
    proper.slice(0, -1),
    `\x01${proper.slice(1)}`,
  ])
    assert.throws(() => read(bad, decodeChain), { code: 'bad-message' });
});

test('frames come out as they went in, however the stream is cut', () => {
  const message = fc.uint8Array({ minLength: 1, maxLength: 300 }).map((bytes) => Buffer.from(bytes).toString('latin1'));
  fc.assert(
    fc.property(
      fc.array(message, { maxLength: 20 }),
      fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1 }),
      (messages, cuts) => {
        const bytes = wire(...messages);
        const chunks: Buffer[] = [];
        for (let at = 0, i = 0; at < bytes.length; i++) {
          const size = cuts[i % cuts.length] ?? 1;
          chunks.push(bytes.subarray(at, at + size));
          at += size;
        }
        const found = frames(...chunks);
        assert.deepEqual(
          found.map(({ id, type, body }) => [id, String.fromCharCode(type) + body.toString('latin1')]),
          messages.map((text, i) => [i + 1, text]),
        );
      },
    ),
  );
  const longest = 'x'.repeat(65_535 - 4);
  assert.equal(frames(wire(longest))[0]?.body.length, longest.length - 1);
  assert.throws(() => wire(`${longest}x`), RangeError);
  assert.equal(new FrameWriter().take(), undefined);
  for (const bad of ['0000', '000400000001', '0001'])
    assert.throws(() => frames(Buffer.from(bad, 'hex')), { code: 'bad-message' });
});
