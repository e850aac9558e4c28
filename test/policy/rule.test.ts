import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatRule } from '../../src/model/verdict.ts';
import { decide } from '../../src/policy/decide.ts';
import { comparePolicies, compareRules, type Policy, type Rule } from '../../src/policy/rule.ts';
import { policiesArbitrary } from '../support/arbitraries.ts';
import { clusterWith } from '../support/cluster.ts';

type Style = Partial<Pick<Rule, 'level' | 'verdict' | 'priority'>>;

/** A policy about every pod's ingress, in the rule form, with a rule about everybody for each style. */
function tiered(name: string, isolates: boolean, ...styles: Style[]): Policy {
  return {
    kind: 'Tiered',
    namespace: '',
    name,
    gate: 'network',
    subject: { kind: 'pods', namespaces: { selector: {} }, pods: {} },
    isolates: isolates ? ['ingress'] : [],
    rules: styles.map((style, index) => ({
      ref: { kind: 'Tiered', namespace: '', name, direction: 'ingress', index },
      peers: 'any',
      ports: 'any',
      verdict: 'allow',
      level: 'allow',
      priority: 0,
      ...style,
    })),
  };
}

// [what, policies, what ingress says]
const rows: readonly [string, readonly Policy[], string][] = [
  [
    'a higher level decides',
    [tiered('a', false, { level: 'allow' }, { level: 'deny', verdict: 'deny' }, { level: 'admin' })],
    'allow Tiered a ingress[2]',
  ],
  [
    'a deny beats the allows',
    [tiered('a', true, {}), tiered('b', false, { level: 'deny', verdict: 'deny' })],
    'deny Tiered b ingress[0]',
  ],
  [
    'within a level the lower priority number decides',
    [tiered('a', false, { level: 'admin', priority: 2 }, { level: 'admin', priority: 1, verdict: 'deny' })],
    'deny Tiered a ingress[1]',
  ],
  [
    'at one priority deny decides',
    [tiered('a', false, { level: 'admin' }), tiered('b', false, { level: 'admin', verdict: 'deny' })],
    'deny Tiered b ingress[0]',
  ],
  [
    'the baseline decides where nothing isolates',
    [tiered('a', false, { level: 'baseline', verdict: 'deny' })],
    'deny Tiered a ingress[0]',
  ],
  [
    'and is not asked where something does',
    [tiered('a', false, { level: 'baseline' }), tiered('b', true)],
    'deny isolation',
  ],
  ['an allow that does not isolate', [tiered('a', false, {})], 'allow Tiered a ingress[0]'],
];
for (const [name, policies, expected] of rows)
  test(name, () => {
    const view = clusterWith(policies);
    const flow = {
      source: { pod: 'shop/front-1' },
      destination: { pod: 'shop/cart' },
      protocol: 'TCP',
      port: 80,
    } as const;
    for (const order of [policies, [...policies].reverse()]) {
      const { ingress } = decide({ ...view, policies: order }, flow);
      assert.equal(`${ingress.verdict} ${ingress.by === 'rule' ? formatRule(ingress.rule) : ingress.by}`, expected);
    }
  });

test('rules and policies have one order', () => {
  fc.assert(
    fc.property(policiesArbitrary({ tiered: true, maxLength: 8 }), (policies) => {
      const rules = policies.flatMap((policy) => policy.rules).filter((rule) => rule.ref.direction === 'ingress');
      const sorted = [...rules].sort(compareRules);
      // Rules that one rule of a manifest was taken apart into share its reference and stay as they stood.
      const refs = (list: readonly Rule[]) => list.map(({ ref }) => ref);
      assert.deepEqual(refs([...rules].reverse().sort(compareRules)), refs(sorted));
      for (const [i, a] of sorted.entries()) for (const b of sorted.slice(i + 1)) assert.ok(compareRules(a, b) <= 0);
      assert.deepEqual([...policies].reverse().sort(comparePolicies), [...policies].sort(comparePolicies));
    }),
  );
});
