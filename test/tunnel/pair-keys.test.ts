import assert from 'node:assert/strict';
import { createHash, createHmac, hkdfSync } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseIp } from '../../src/model/address.ts';
import { formatSpiffeId } from '../../src/model/identity.ts';
import type { SessionKeys } from '../../src/tunnel/handshake/keys.ts';
import { derivePairKeys, hkdfExpand, type PairEnd } from '../../src/tunnel/handshake/pair-keys.ts';

const hex = (text: string) => Buffer.from(text, 'hex');
const range = (from: number, to: number) => Buffer.from(Array.from({ length: to - from }, (_, i) => from + i));

test('HKDF as RFC 5869 appendix A has it', () => {
  const cases = [
    {
      algorithm: 'sha256' as const,
      secret: Buffer.alloc(22, 0x0b),
      salt: range(0, 0x0d),
      info: range(0xf0, 0xfa),
      length: 42,
      prk: '077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5',
      okm: '3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865',
    },
    {
      algorithm: 'sha256' as const,
      secret: range(0, 0x50),
      salt: range(0x60, 0xb0),
      info: range(0xb0, 0x100),
      length: 82,
      prk: '06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244',
      okm: 'b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87',
    },
    {
      algorithm: 'sha256' as const,
      secret: Buffer.alloc(22, 0x0b),
      salt: Buffer.alloc(0),
      info: Buffer.alloc(0),
      length: 42,
      prk: '19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04',
      okm: '8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8',
    },
    {
      algorithm: 'sha1' as const,
      secret: Buffer.alloc(11, 0x0b),
      salt: range(0, 0x0d),
      info: range(0xf0, 0xfa),
      length: 42,
      prk: '9b6c18c432a7bf8f0e71c8eb88f4b30baa2ba243',
      okm: '085a01ea1b10f36933068b56efa5ad81a4f14b822f5b091568a9cdd4f155fda2c22e422478d305f3f896',
    },
  ];
  for (const { algorithm, secret, salt, info, length, prk, okm } of cases) {
    assert.equal(createHmac(algorithm, salt).update(secret).digest('hex'), prk);
    assert.equal(hkdfExpand(algorithm, hex(prk), info, length).toString('hex'), okm);
  }
});

const bytes = (minLength: number, maxLength: number) => fc.uint8Array({ minLength, maxLength });

test('HKDF as Node has it, for the hash and the lengths that are used here', () => {
  fc.assert(
    fc.property(
      bytes(64, 64),
      bytes(64, 64),
      bytes(0, 1024),
      fc.integer({ min: 1, max: 200 }),
      (root, salt, info, length) => {
        const extracted = createHmac('sha512', salt).update(root).digest();
        const ours = hkdfExpand('sha512', extracted, info, length);
        assert.deepEqual(ours, Buffer.from(hkdfSync('sha512', root, salt, info, length)));
      },
    ),
  );
});

const root = range(1, 65);
const id = (serviceAccount: string) =>
  formatSpiffeId({ trustDomain: 'cluster.local', namespace: 'shop', serviceAccount });
const web: PairEnd = {
  spiffeId: id('web'),
  uid: 'web-uid',
  addresses: [parseIp('10.244.0.1'), parseIp('fd00:10:244::1')],
  spi: 0x1001,
  nonce: Buffer.alloc(32, 0x11),
};
const db: PairEnd = {
  spiffeId: id('db'),
  uid: 'db-uid',
  addresses: [parseIp('10.244.1.1'), parseIp('fd00:10:244:1::1')],
  spi: 0x2002,
  nonce: Buffer.alloc(32, 0x22),
};

function text({ initiatorToResponder, responderToInitiator }: SessionKeys): string[] {
  return [initiatorToResponder, responderToInitiator].map(({ key, salt }) =>
    Buffer.concat([key, salt]).toString('hex'),
  );
}

test('the derivation of docs/TUNNELS.md, to the byte', () => {
  // Written out from the document, with Node's own HKDF, and not by the code that is tested.
  const transcript = createHash('sha512').update('offer\nanswer\n').digest();
  const info = Buffer.concat(
    [
      Buffer.from('myelin-node/2 esp'),
      Buffer.from('spiffe://cluster.local/ns/shop/sa/web'),
      Buffer.from('spiffe://cluster.local/ns/shop/sa/db'),
      Buffer.from('web-uid'),
      Buffer.from('db-uid'),
      Buffer.from('10.244.0.1,fd00:10:244::1'),
      Buffer.from('10.244.1.1,fd00:10:244:1::1'),
      transcript,
      hex('00001001'),
      Buffer.alloc(32, 0x11),
      hex('00002002'),
      Buffer.alloc(32, 0x22),
    ].map((part) => Buffer.concat([Buffer.from([part.length >> 8, part.length & 255]), part])),
  );
  // One block of HKDF-Expand, by the letter of RFC 5869 section 2.3.
  const block = createHmac('sha512', root).update(info).update(Uint8Array.of(1)).digest('hex');
  const salts = transcript.toString('hex');
  const expected = [block.slice(0, 64) + salts.slice(0, 8), block.slice(64) + salts.slice(8, 16)];
  const keys = text(derivePairKeys(root, { initiator: web, responder: db }, 'offer', 'answer'));
  assert.deepEqual(keys, expected);
  // The document's test vector.
  assert.deepEqual(keys, [
    'ef29867c4f6e9a1583872c13e5c4a47806d0474600f99d65fad8768bc6c9fdeb845c5195',
    '28a469cd399099e6291eedf6d767b8446af0156be7c11094253fa1f22db4dce28f6f5605',
  ]);
});

test('whatever is different, the keys are; and what is the same gives the same', () => {
  const base = () => derivePairKeys(root, { initiator: web, responder: db }, 'offer', 'answer');
  const seen = new Set(text(base()));
  assert.deepEqual(text(base()), [...seen]);
  assert.equal(seen.size, 2);
  const other = Buffer.alloc(32, 0x33);
  const variants: SessionKeys[] = [
    derivePairKeys(range(2, 66), { initiator: web, responder: db }, 'offer', 'answer'),
    derivePairKeys(root, { initiator: db, responder: web }, 'offer', 'answer'),
    derivePairKeys(root, { initiator: web, responder: db }, 'offer ', 'answer'),
    derivePairKeys(root, { initiator: web, responder: db }, 'offer', 'answer '),
    ...[
      { spiffeId: id('other') },
      { uid: 'other' },
      { addresses: web.addresses.slice(0, 1) },
      { addresses: [...web.addresses].reverse() },
      { spi: 0x1002 },
      { nonce: other },
    ].flatMap((change) => [
      derivePairKeys(root, { initiator: { ...web, ...change }, responder: db }, 'offer', 'answer'),
      derivePairKeys(root, { initiator: web, responder: { ...db, ...change } }, 'offer', 'answer'),
    ]),
  ];
  for (const keys of variants) for (const key of text(keys)) seen.add(key);
  assert.equal(seen.size, 2 + 2 * variants.length);
});
