import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  formatSpiffeId,
  identityNumber,
  lastIdentity,
  lastNameIdentity,
  parseSpiffeId,
} from '../../src/model/identity.ts';

const label = fc.stringMatching(/^[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?$/);

test('a SPIFFE ID survives being written and read', () => {
  const parts = fc.record({
    trustDomain: fc.stringMatching(/^[a-z0-9._-]{1,40}$/),
    namespace: label,
    serviceAccount: fc.array(label, { minLength: 1, maxLength: 3 }).map((all) => all.join('.')),
  });
  fc.assert(fc.property(parts, (own) => assert.deepEqual(parseSpiffeId(formatSpiffeId(own)), { ...own })));
});

const good = 'spiffe://cluster.local/ns/shop/sa/cart';
for (const text of [
  '',
  'cluster.local/ns/shop/sa/cart',
  'SPIFFE://cluster.local/ns/shop/sa/cart',
  'spiffe:///ns/shop/sa/cart',
  'spiffe://Cluster.local/ns/shop/sa/cart',
  'spiffe://cluster.local:443/ns/shop/sa/cart',
  'spiffe://user@cluster.local/ns/shop/sa/cart',
  `${good}/`,
  `${good}/x`,
  `${good}?q`,
  `${good}#f`,
  `${good}\n`,
  ` ${good}`,
  'spiffe://cluster.local/ns//sa/cart',
  'spiffe://cluster.local/ns/shop/sa/',
  'spiffe://cluster.local/ns/shop/sa/..',
  'spiffe://cluster.local/ns/sh.op/sa/cart',
  'spiffe://cluster.local/ns/-shop/sa/cart',
  'spiffe://cluster.local/ns/shop/sa/c%61rt',
  `spiffe://cluster.local/ns/${'a'.repeat(64)}/sa/cart`,
  `spiffe://cluster.local/ns/shop/sa/${'a'.repeat(254)}`,
])
  test(`${JSON.stringify(text.slice(0, 60))} is refused`, () => {
    assert.throws(() => parseSpiffeId(text), { code: 'InvalidSpiffeId' });
  });

test('identity numbers have 24 bits', () => {
  for (const number of [0, 256, lastIdentity, lastNameIdentity]) assert.equal(identityNumber(number), number);
  for (const number of [-1, 1.5, Number.NaN, lastNameIdentity + 1])
    assert.throws(() => identityNumber(number), { code: 'InvalidIdentity' }, String(number));
});
