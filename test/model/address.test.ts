import assert from 'node:assert/strict';
import { isIP } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  familyOf,
  ipFromBytes,
  ipToBytes,
  ipToBytes16,
  macFromBytes,
  macToBytes,
  parseIp,
  parseMac,
  tryParseIp,
} from '../../src/model/address.ts';

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
/** Words with many zeros, so that runs of them are long, equal and at the edges. */
const words = fc.array(fc.oneof({ weight: 2, arbitrary: fc.constant(0) }, fc.nat(0xffff)), {
  minLength: 8,
  maxLength: 8,
});
const isMapped = (w: readonly number[]) => w.slice(0, 5).every((x) => x === 0) && w[5] === 0xffff;
const hex = (word: number) => word.toString(16);

test('an address survives the way through its bytes and its text', () => {
  fc.assert(
    fc.property(fc.oneof(bytes(4), bytes(16)), (raw) => {
      const ip = ipFromBytes(raw);
      assert.equal(ipFromBytes(ipToBytes(ip)), ip);
      assert.equal(ipFromBytes(ipToBytes16(ip)), ip);
      assert.equal(parseIp(ip), ip);
      assert.equal(isIP(ip), familyOf(ip));
      assert.equal(ipToBytes(ip).length, familyOf(ip) === 4 ? 4 : 16);
    }),
  );
});

test('the bytes are the address, not just something reversible', () => {
  assert.deepEqual([...ipToBytes(parseIp('10.1.2.3'))], [10, 1, 2, 3]);
  assert.equal(Buffer.from(ipToBytes16(parseIp('10.1.2.3'))).toString('hex'), '00000000000000000000ffff0a010203');
  assert.equal(Buffer.from(ipToBytes16(parseIp('fd00::1:2'))).toString('hex'), 'fd000000000000000000000000010002');
});

test('IPv6 text is canonical as RFC 5952 has it, whatever form it was written in', () => {
  const upper = fc.boolean();
  fc.assert(
    fc.property(words, upper, fc.boolean(), fc.nat(7), fc.nat(8), (w, loud, dotted, from, length) => {
      const padded = w.map((word) => hex(word).padStart(4, '0'));
      const to = Math.min(8, from + length);
      const squeezes = to > from && w.slice(from, to).every((word) => word === 0);
      let text = squeezes ? `${padded.slice(0, from).join(':')}::${padded.slice(to).join(':')}` : padded.join(':');
      if (dotted && (!squeezes || to <= 6)) {
        const [a = 0, b = 0] = w.slice(6);
        text = `${text.slice(0, text.length - 9)}${a >> 8}.${a & 255}.${b >> 8}.${b & 255}`;
      }
      const ip = parseIp(loud ? text.toUpperCase() : text);
      // The URL standard's host serializer is an RFC 5952 formatter by other hands, but for mapped addresses.
      const [, tail] = [w.slice(0, 6), w.slice(6)];
      const expected = isMapped(w)
        ? tail.flatMap((word) => [word >> 8, word & 255]).join('.')
        : new URL(`http://[${w.map(hex).join(':')}]/`).hostname.slice(1, -1);
      assert.equal(ip, expected, text);
    }),
    { numRuns: 2000 },
  );
});

test('what Node takes for an address, and nothing else, is one', () => {
  const alphabet = fc.string({ unit: fc.constantFrom(...'0123456789abcdefF:.%/ '), maxLength: 20 });
  fc.assert(
    fc.property(alphabet, (text) => {
      assert.equal(tryParseIp(text) !== undefined, isIP(text) !== 0 && !text.includes('%'), text);
    }),
    { numRuns: 2000 },
  );
  for (const text of [
    '',
    '1.2.3',
    '1.2.3.4.5',
    '01.2.3.4',
    '256.1.1.1',
    '1.2.3.4/8',
    'fe80::1%eth0',
    ':::',
    '1::2::3',
    '12345::',
    '::1 ',
    '1.2.3.4\n',
    '::ffff:1.2.3',
    'localhost',
  ]) {
    assert.equal(tryParseIp(text), undefined, JSON.stringify(text));
    assert.throws(() => parseIp(text), { code: 'InvalidAddress' });
  }
});

test('an address has 4 or 16 bytes', () => {
  for (const length of [0, 3, 5, 15, 17])
    assert.throws(() => ipFromBytes(new Uint8Array(length)), { code: 'InvalidAddress' });
});

test('Ethernet addresses', () => {
  fc.assert(fc.property(bytes(6), (raw) => assert.deepEqual(macToBytes(parseMac(macFromBytes(raw))), raw)));
  assert.equal(parseMac('02:00:AB:cd:Ef:09'), '02:00:ab:cd:ef:09');
  for (const text of [
    '',
    '02:00:ab:cd:ef',
    '02:00:ab:cd:ef:0',
    '02-00-ab-cd-ef-09',
    '02:00:ab:cd:ef:0g',
    '02:00:ab:cd:ef:09:01',
  ])
    assert.throws(() => parseMac(text), { code: 'InvalidAddress' }, text);
});
