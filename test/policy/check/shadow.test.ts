import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parsePrefix } from '../../../src/model/prefix.ts';
import { coversPeer, coversPorts } from '../../../src/policy/check/cover.ts';
import { findShadows } from '../../../src/policy/check/shadow.ts';
import { decide } from '../../../src/policy/decide.ts';
import { matchesPeer } from '../../../src/policy/match.ts';
import type { PeerMatch, Policy } from '../../../src/policy/rule.ts';
import type { ClusterView } from '../../../src/policy/view.ts';
import { flowsArbitrary, flowsIn, viewArbitrary } from '../../support/arbitraries.ts';
import { ciliumPolicyArbitrary } from '../../support/cilium-arbitraries.ts';

const pods = (namespace: string | undefined, labels: Record<string, string> = {}): PeerMatch => ({
  kind: 'pods',
  namespaces: namespace === undefined ? { selector: {} } : { name: namespace },
  pods: Object.keys(labels).length === 0 ? {} : { matchLabels: labels },
});
const cidr = (text: string, ...except: string[]): PeerMatch => ({
  kind: 'cidr',
  cidr: parsePrefix(text),
  except: except.map(parsePrefix),
});
const expressions = (operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist', ...values: string[]): PeerMatch => ({
  kind: 'pods',
  namespaces: { selector: {} },
  pods: { matchExpressions: [{ key: 'app', operator, ...(values.length === 0 ? {} : { values }) }] },
});

test('peers that hold each other, and such that do not', () => {
  const yes: readonly [outer: PeerMatch, inner: PeerMatch][] = [
    [{ kind: 'all', of: [] }, cidr('0.0.0.0/0')],
    [pods(undefined), pods('a', { app: 'x' })],
    [pods('a'), pods('a', { app: 'x' })],
    [pods('a', { app: 'x' }), pods('a', { app: 'x', tier: 'y' })],
    [expressions('In', 'x', 'y'), pods('a', { app: 'x' })],
    [expressions('Exists'), expressions('In', 'x')],
    [expressions('NotIn', 'x'), expressions('In', 'y')],
    [expressions('NotIn', 'x'), expressions('NotIn', 'x', 'y')],
    [expressions('NotIn', 'x'), expressions('DoesNotExist')],
    [{ kind: 'authenticated' }, { kind: 'account', match: { op: 'exact', text: 'a' } }],
    [cidr('10.0.0.0/8'), cidr('10.1.0.0/16')],
    [cidr('10.0.0.0/8', '10.2.0.0/16'), cidr('10.1.0.0/16')],
    [cidr('10.0.0.0/8', '10.1.2.0/24'), cidr('10.1.0.0/16', '10.1.2.0/23')],
    [{ kind: 'world' }, { kind: 'cidr', cidr: parsePrefix('10.0.0.0/8'), except: [], worldOnly: true }],
    [
      { kind: 'node', which: 'any' },
      { kind: 'node', which: 'own', labels: { matchLabels: { a: 'b' } } },
    ],
    [pods('a'), { kind: 'all', of: [pods('a'), { kind: 'authenticated' }] }],
    [{ kind: 'some', of: [pods('a'), pods('b')] }, pods('b', { app: 'x' })],
    [pods(undefined), { kind: 'some', of: [pods('a'), pods('b')] }],
  ];
  for (const [outer, inner] of yes) assert.ok(coversPeer(outer, inner), JSON.stringify([outer, inner]));
  const no: readonly [outer: PeerMatch, inner: PeerMatch][] = [
    [pods('a'), pods('b')],
    [pods('a'), pods(undefined)],
    [pods('a', { app: 'x' }), pods('a')],
    [expressions('In', 'x'), expressions('In', 'x', 'y')],
    [expressions('NotIn', 'x', 'y'), expressions('NotIn', 'x')],
    [cidr('10.1.0.0/16'), cidr('10.0.0.0/8')],
    [cidr('10.0.0.0/8', '10.1.2.0/24'), cidr('10.1.0.0/16')],
    [{ kind: 'cidr', cidr: parsePrefix('10.0.0.0/8'), except: [], worldOnly: true }, cidr('10.0.0.0/8')],
    [
      { kind: 'node', which: 'own' },
      { kind: 'node', which: 'any' },
    ],
    [{ kind: 'world' }, cidr('0.0.0.0/0')],
    [{ kind: 'authenticated' }, { kind: 'all', of: [] }],
  ];
  for (const [outer, inner] of no) assert.equal(coversPeer(outer, inner), false, JSON.stringify([outer, inner]));
});

test('ports that hold each other, and such that do not', () => {
  const tcp = (from: number, to = from) => ({ protocol: 'TCP', port: { from, to } }) as const;
  assert.ok(coversPorts('any', [tcp(80)]));
  assert.ok(coversPorts([tcp(0, 65535)], [tcp(80), { protocol: 'TCP', port: { name: 'web' } }]));
  assert.ok(coversPorts([tcp(1, 100)], [tcp(80, 90)]));
  assert.ok(coversPorts([{ protocol: 'ICMP' }], [{ protocol: 'ICMP', type: 8 }]));
  assert.equal(coversPorts([tcp(80)], 'any'), false);
  assert.equal(coversPorts([tcp(80)], [{ protocol: 'TCP', port: { name: 'web' } }]), false);
  assert.equal(coversPorts([tcp(80)], [{ protocol: 'UDP', port: { from: 80, to: 80 } }]), false);
  assert.equal(coversPorts([{ protocol: 'ICMP', type: 8 }], [{ protocol: 'ICMP' }]), false);
});

const ciliumPolicies = fc.tuple(...['a', 'b', 'c', 'd'].map(ciliumPolicyArbitrary));

/** Every namespace’s labels are there: one that is not known yet is in no selection, not even in that of all. */
function known(view: ClusterView): ClusterView {
  const missing = [...view.pods.values()].filter(({ namespace }) => !view.namespaces.has(namespace));
  return {
    ...view,
    namespaces: new Map([...view.namespaces, ...missing.map(({ namespace }) => [namespace, {}] as const)]),
  };
}

test('who is held is matched, in every cluster', () => {
  let held = 0;
  fc.assert(
    fc.property(viewArbitrary().map(known), ciliumPolicies, (view, policies) => {
      const peers = policies.flatMap(({ subject, rules }) => [
        subject,
        ...rules.flatMap(({ peers: own }) => (own === 'any' ? [] : own)),
      ]);
      for (const outer of peers)
        for (const inner of peers) {
          if (outer === inner || !coversPeer(outer, inner)) continue;
          held++;
          for (const pod of view.pods.values())
            for (const address of pod.addresses)
              if (matchesPeer(view, inner, { pod, address }))
                assert.ok(matchesPeer(view, outer, { pod, address }), JSON.stringify([outer, inner]));
        }
    }),
    { numRuns: 200 },
  );
  assert.ok(held > 100, `${held} pairs only`);
});

test('without a rule that makes no difference, nothing is decided differently', () => {
  let removed = 0;
  fc.assert(
    fc.property(viewArbitrary().map(known), ciliumPolicies, flowsArbitrary(), (view, added, flows) => {
      const policies = [...view.policies, ...added];
      for (const { rule } of findShadows(policies).slice(0, 3)) {
        removed++;
        const without = policies.map(
          (policy): Policy =>
            policy === rule.policy ? { ...policy, rules: policy.rules.filter((own) => own !== rule.rule) } : policy,
        );
        for (const flow of flowsIn(view, flows))
          assert.equal(
            decide({ ...view, policies: without }, flow).verdict,
            decide({ ...view, policies }, flow).verdict,
            JSON.stringify({ rule: rule.rule, flow }),
          );
      }
    }),
    { numRuns: 400 },
  );
  assert.ok(removed > 50, `${removed} rules only`);
});
