import assert from 'node:assert/strict';
import { createHmac, hkdfSync } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseIp } from '../../src/model/address.ts';
import { formatSpiffeId } from '../../src/model/identity.ts';
import type { SessionKeys } from '../../src/tunnel/handshake/keys.ts';
import { type PairEnd, PairKeySchedule, rootLength } from '../../src/tunnel/handshake/pair-keys.ts';
import { encodePair, type PairTerms } from '../../src/tunnel/handshake/pair-messages.ts';

const root = Buffer.from(Array.from({ length: rootLength }, (_, i) => i + 1));
const id = (serviceAccount: string) =>
  formatSpiffeId({ trustDomain: 'cluster.local', namespace: 'shop', serviceAccount });
const web: PairEnd = { spiffeId: id('web'), uid: 'web-uid' };
const db: PairEnd = { spiffeId: id('db'), uid: 'db-uid' };
const terms: PairTerms = {
  spi: 0x1001,
  port: 4500,
  lifetime: { seconds: 3600, bytes: 2 ** 36, packets: 2 ** 40 },
  svid: '\x0a'.repeat(32),
  selectors: [
    { initiator: parseIp('10.244.0.1'), responder: parseIp('10.244.1.1') },
    { initiator: parseIp('fd00:10:244::1'), responder: parseIp('fd00:10:244:1::1') },
  ],
};
const offer = encodePair(terms, Buffer.alloc(32, 0x11), 'db-uid');
const answer = encodePair({ ...terms, spi: 0x2002, svid: '\x0b'.repeat(32) }, Buffer.alloc(32, 0x22));

function text({ initiatorToResponder, responderToInitiator }: SessionKeys): string[] {
  return [initiatorToResponder, responderToInitiator].map(({ key, salt }) =>
    Buffer.concat([key, salt]).toString('hex'),
  );
}

/** docs/TUNNELS.md by the letter, with Node's own HMAC, and not by the code that is tested. */
function byTheLetter(secret: Buffer, fields: readonly Buffer[], offered: Buffer, answered: Buffer): string[] {
  const info = Buffer.concat(
    [Buffer.from('myelin-node/3 esp'), ...fields, offered, answered].map((part) =>
      Buffer.concat([Buffer.from([part.length >> 8, part.length & 255]), part]),
    ),
  );
  // One block of HKDF-Expand (RFC 5869 section 2.3).
  const block = createHmac('sha512', secret).update(info).update(Uint8Array.of(1)).digest('hex');
  const salt = (message: Buffer) => message.subarray(61, 65).toString('hex');
  return [block.slice(0, 64) + salt(offered), block.slice(64) + salt(answered)];
}

test('the messages and the derivation of docs/TUNNELS.md, to the byte', () => {
  const hex = (...parts: string[]) => parts.join('');
  const selectors = hex('02', '04', '0af40001', '0af40101').concat(
    hex('06', 'fd000010024400000000000000000001', 'fd000010024400010000000000000001'),
  );
  const limits = hex('00000e10', '0000001000000000', '0000010000000000');
  const offered = hex('03', '01', '01', '1194', '00001001', limits, '0a'.repeat(32), '11'.repeat(32), selectors).concat(
    hex('06', '64622d756964'),
  );
  const answered = hex('04', '01', '01', '1194', '00002002', limits, '0b'.repeat(32), '22'.repeat(32), selectors);
  assert.equal(Buffer.from(offer, 'latin1').toString('hex'), offered);
  assert.equal(Buffer.from(answer, 'latin1').toString('hex'), answered);
  const names = [web.spiffeId, db.spiffeId, web.uid, db.uid].map((name) => Buffer.from(name));
  const keys = text(new PairKeySchedule(root).derive(web, db, offer, answer));
  assert.deepEqual(keys, byTheLetter(root, names, Buffer.from(offered, 'hex'), Buffer.from(answered, 'hex')));
  // The document's test vector.
  assert.deepEqual(keys, [
    'a54d285ba15460809fe7fabd9fbf99f2e865f5260a6ea3c756853a9604fc2d8411111111',
    'a659d6a21ba3753018f9b7ca3f32d2f73baa317b01fe7a0975c795fb3d0dbecf22222222',
  ]);
});

test('it is HKDF, for any root and any names', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: rootLength, maxLength: rootLength }),
      fc.string({ maxLength: 200 }),
      fc.string({ minLength: 1, maxLength: 63 }),
      (secret, account, uid) => {
        const ascii = account.replaceAll(/[^!-~]/g, '-');
        const own = { spiffeId: id(ascii), uid: uid.replaceAll(/[^!-~]/g, '-') };
        // What HKDF extracts is what its expansion is keyed with.
        const extracted = createHmac('sha512', Buffer.alloc(8)).update(secret).digest();
        const names = [own.spiffeId, db.spiffeId, own.uid, db.uid].map((name) => Buffer.from(name));
        const [said, heard] = [Buffer.from(offer, 'latin1'), Buffer.from(answer, 'latin1')];
        const schedule = new PairKeySchedule(extracted);
        const keys = text(schedule.derive(own, db, offer, answer));
        assert.deepEqual(keys, byTheLetter(extracted, names, said, heard));
        const info = Buffer.concat(
          [Buffer.from('myelin-node/3 esp'), ...names, said, heard].map((part) =>
            Buffer.concat([Buffer.from([part.length >> 8, part.length & 255]), part]),
          ),
        );
        if (info.length <= 1024) {
          const whole = Buffer.from(hkdfSync('sha512', secret, Buffer.alloc(8), info, 64)).toString('hex');
          assert.deepEqual(
            keys.map((key) => key.slice(0, 64)),
            [whole.slice(0, 64), whole.slice(64)],
          );
        }
      },
    ),
  );
});

test('whatever is different, the keys are; and what is the same gives the same', () => {
  const schedule = new PairKeySchedule(root);
  const base = () => schedule.derive(web, db, offer, answer);
  const seen = new Set(text(base()));
  assert.deepEqual(text(base()), [...seen]);
  assert.equal(seen.size, 2);
  const own = (change: Partial<PairTerms>) => encodePair({ ...terms, ...change }, Buffer.alloc(32, 0x11), 'db-uid');
  const theirs = (change: Partial<PairTerms>) => encodePair({ ...terms, ...change }, Buffer.alloc(32, 0x22));
  const changes: Partial<PairTerms>[] = [
    { spi: 0x3003 },
    { port: 4501 },
    { svid: '\x0c'.repeat(32) },
    { selectors: terms.selectors.slice(0, 1) },
    { selectors: [...terms.selectors].reverse() },
    { lifetime: { seconds: 3601 } },
  ];
  const variants: SessionKeys[] = [
    new PairKeySchedule(Buffer.alloc(rootLength, 7)).derive(web, db, offer, answer),
    schedule.derive(db, web, offer, answer),
    schedule.derive(web, db, answer, offer),
    schedule.derive({ ...web, uid: 'other' }, db, offer, answer),
    schedule.derive({ ...web, spiffeId: id('other') }, db, offer, answer),
    schedule.derive(web, { ...db, uid: 'other' }, offer, answer),
    schedule.derive(web, { ...db, spiffeId: id('other') }, offer, answer),
    // Fields do not run into one another.
    schedule.derive({ ...web, uid: 'web-uidd' }, { ...db, uid: 'b-uid' }, offer, answer),
    schedule.derive(web, db, encodePair(terms, Buffer.alloc(32, 0x12), 'db-uid'), answer),
    schedule.derive(web, db, offer, encodePair(terms, Buffer.alloc(32, 0x23))),
    ...changes.flatMap((change) => [
      schedule.derive(web, db, own(change), answer),
      schedule.derive(web, db, offer, theirs(change)),
    ]),
  ];
  for (const keys of variants)
    for (const { key } of [keys.initiatorToResponder, keys.responderToInitiator]) seen.add(key.toString('hex'));
  assert.equal(seen.size, 2 + 2 * variants.length);
  // Nothing of one derivation shows in the next.
  assert.deepEqual(text(base()), [...seen].slice(0, 2));
});

test('a schedule that is wiped derives nothing that it did before', () => {
  const schedule = new PairKeySchedule(root);
  const before = text(schedule.derive(web, db, offer, answer));
  schedule.wipe();
  const [after] = text(schedule.derive(web, db, offer, answer));
  assert.notEqual(after, before[0]);
  const long = { ...web, spiffeId: id('x'.repeat(9000)) };
  assert.throws(() => new PairKeySchedule(root).derive(long, db, offer, answer), RangeError);
  assert.throws(() => new PairKeySchedule(root.subarray(1)), RangeError);
});
