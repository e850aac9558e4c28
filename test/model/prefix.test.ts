import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { familyOf, type IpAddress, ipFromBytes, ipToBytes, parseIp } from '../../src/model/address.ts';
import {
  hostPrefix,
  type Prefix,
  parsePrefix,
  prefixContains,
  prefixOf,
  prefixParts,
  prefixWithin,
} from '../../src/model/prefix.ts';

/** Few distinct bytes, so that addresses share long prefixes. */
const byte = fc.constantFrom(0, 1, 10, 127, 128, 255);
const ips = fc
  .oneof(fc.array(byte, { minLength: 4, maxLength: 4 }), fc.array(byte, { minLength: 16, maxLength: 16 }))
  .map((raw) => ipFromBytes(Uint8Array.from(raw)));
const bitsOf = (ip: IpAddress) => (familyOf(ip) === 4 ? 32 : 128);
const prefixes = fc.tuple(ips, fc.nat(128)).map(([ip, n]) => prefixOf(ip, n % (bitsOf(ip) + 1)));

function number(ip: IpAddress): bigint {
  return BigInt(`0x${Buffer.from(ipToBytes(ip)).toString('hex')}`);
}

/** First and last address, as numbers: the reference for all below. */
function rangeOf(prefix: Prefix): { family: 4 | 6; first: bigint; last: bigint } {
  const { address, length, family } = prefixParts(prefix);
  const free = BigInt((family === 4 ? 32 : 128) - length);
  return { family, first: number(address), last: number(address) + (1n << free) - 1n };
}

test('a prefix is its first address: host bits are cleared, and equal prefixes are equal texts', () => {
  fc.assert(
    fc.property(prefixes, (prefix) => {
      const { address, length, family } = prefixParts(prefix);
      const free = BigInt((family === 4 ? 32 : 128) - length);
      assert.equal(number(address) & ((1n << free) - 1n), 0n);
      assert.equal(parsePrefix(prefix), prefix);
      assert.equal(prefixOf(address, length), prefix);
    }),
  );
  assert.equal(parsePrefix('10.1.2.3/8'), '10.0.0.0/8');
  assert.equal(parsePrefix('FD00:0:0:1::99/64'), 'fd00:0:0:1::/64');
  assert.equal(parsePrefix('1.2.3.4/0'), '0.0.0.0/0');
  assert.equal(hostPrefix(parseIp('1.2.3.4')), '1.2.3.4/32');
  assert.equal(hostPrefix(parseIp('::1')), '::1/128');
});

test('an address is in a prefix if it lies between its first and last', () => {
  fc.assert(
    fc.property(prefixes, ips, (prefix, ip) => {
      const { family, first, last } = rangeOf(prefix);
      const inside = family === familyOf(ip) && first <= number(ip) && number(ip) <= last;
      assert.equal(prefixContains(prefix, ip), inside);
    }),
    { numRuns: 2000 },
  );
});

test('a prefix is within another if all its addresses are', () => {
  fc.assert(
    fc.property(prefixes, prefixes, (inner, outer) => {
      const [a, b] = [rangeOf(inner), rangeOf(outer)];
      assert.equal(prefixWithin(inner, outer), a.family === b.family && b.first <= a.first && a.last <= b.last);
    }),
    { numRuns: 2000 },
  );
  assert.equal(prefixWithin(parsePrefix('10.0.0.0/8'), parsePrefix('::/0')), false);
});

test('a mapped prefix is the IPv4 prefix that it maps, and one that is cut across IPv4 is none', () => {
  assert.equal(parsePrefix('::ffff:10.1.0.0/104'), '10.0.0.0/8');
  assert.equal(parsePrefix('::ffff:0:0/96'), '0.0.0.0/0');
  assert.throws(() => parsePrefix('::ffff:10.0.0.0/24'), { code: 'InvalidPrefix' });
});

test('what is not a prefix is refused', () => {
  for (const text of [
    '',
    '10.0.0.0',
    '10.0.0.0/',
    '10.0.0.0/33',
    '::/129',
    '10.0.0.0/-1',
    '10.0.0.0/8/8',
    '10.0.0.0/ 8',
    '10.0.0.0/0x8',
    '10.0.0.0/8.0',
    '10.0.0/8',
    '/8',
    'fe80::%1/64',
  ])
    assert.throws(() => parsePrefix(text), { code: 'InvalidPrefix' }, JSON.stringify(text));
  for (const length of [-1, 33, 1.5, Number.NaN])
    assert.throws(() => prefixOf(parseIp('10.0.0.0'), length), { code: 'InvalidPrefix' }, String(length));
});
