import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RuleNames } from '../../src/agent/rule-names.ts';
import type { RuleRef } from '../../src/model/verdict.ts';

const rule = (name: string): RuleRef => ({
  kind: 'NetworkPolicy',
  namespace: 'shop',
  name,
  direction: 'ingress',
  index: -1,
});

test('an event that is read after its rule went still names it', () => {
  let inForce = new Map([[7, rule('old')]]);
  const names = new RuleNames(() => inForce);
  const before = inForce;
  inForce = new Map([[8, rule('new')]]);
  names.retire(before);
  assert.equal(names.of(7)?.name, 'old');
  assert.equal(names.of(8)?.name, 'new');
  assert.equal(names.of(9), undefined);
});

test('what went long ago is forgotten, oldest first', () => {
  let inForce = new Map<number, RuleRef>();
  const names = new RuleNames(() => inForce);
  for (let number = 1; number <= 5000; number++) {
    const before = inForce;
    inForce = new Map([[number, rule(`rule-${number}`)]]);
    names.retire(before);
  }
  assert.equal(names.of(1), undefined);
  assert.equal(names.of(4999)?.name, 'rule-4999');
});
