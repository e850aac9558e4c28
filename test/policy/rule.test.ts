import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseIp } from '../../src/model/address.ts';
import { parsePrefix } from '../../src/model/prefix.ts';
import { formatRule } from '../../src/model/verdict.ts';
import { decide } from '../../src/policy/decide.ts';
import { matchesPeer, type RulePeer } from '../../src/policy/match.ts';
import {
  comparePolicies,
  compareRules,
  type IcmpMatch,
  type NameMatch,
  type PeerMatch,
  type Policy,
  type Rule,
} from '../../src/policy/rule.ts';
import { policiesArbitrary } from '../support/arbitraries.ts';
import { clusterWith } from '../support/cluster.ts';

type Style = Partial<Pick<Rule, 'level' | 'verdict' | 'priority' | 'requests' | 'ports' | 'peers'>>;

const gets: Rule['requests'] = [{ kind: 'http', method: { some: [{ op: 'exact', text: 'GET' }] } }];

function meshed(policy: Policy): Policy {
  return { ...policy, gate: 'mesh' };
}

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
  [
    'a pass of the admin level skips its rest, and the next level decides',
    [
      tiered('a', false, { level: 'admin', verdict: 'pass' }, { level: 'admin', priority: 1, verdict: 'deny' }),
      tiered('b', true, {}),
    ],
    'allow Tiered b ingress[0]',
  ],
  [
    'a pass leaves it to isolation, too',
    [tiered('a', true, { level: 'admin', verdict: 'pass' }, { level: 'admin', priority: 1 })],
    'deny isolation',
  ],
  [
    'what is passed over in the admin level is not passed over in the baseline',
    [tiered('a', false, { level: 'admin', verdict: 'pass' }, { level: 'baseline', verdict: 'deny' })],
    'deny Tiered a ingress[1]',
  ],
  [
    'a pass of the baseline leaves it to the default',
    [tiered('a', false, { level: 'baseline', verdict: 'pass' }, { level: 'baseline', priority: 1, verdict: 'deny' })],
    'allow default',
  ],
  [
    'at one priority a deny comes before a pass',
    [tiered('a', false, { level: 'admin', verdict: 'pass' }), tiered('b', false, { level: 'admin', verdict: 'deny' })],
    'deny Tiered b ingress[0]',
  ],
  [
    'and a pass before an allow',
    [tiered('a', false, { level: 'admin' }), tiered('b', true, { level: 'admin', verdict: 'pass' })],
    'deny isolation',
  ],
  [
    'where nothing is passed over to, a pass denies',
    [tiered('a', false, { verdict: 'pass' })],
    'deny Tiered a ingress[0]',
  ],
  [
    'the mesh gate denies what the network gate allows',
    [tiered('a', true, {}), meshed(tiered('b', false, { level: 'deny', verdict: 'deny' }))],
    'deny Tiered b ingress[0]',
  ],
  ['it isolates on its own', [tiered('a', true, {}), meshed(tiered('b', true))], 'deny isolation'],
  [
    'what the network gate denies it cannot allow',
    [tiered('a', true), meshed(tiered('b', true, {}))],
    'deny isolation',
  ],
  ['even as an admin', [tiered('a', false, { level: 'admin' }), meshed(tiered('b', true))], 'deny isolation'],
  [
    'where both allow, the network gate’s rule is named',
    [tiered('b', false, {}), meshed(tiered('a', true, {}))],
    'allow Tiered b ingress[0]',
  ],
  ['or the mesh gate’s where only that has one', [meshed(tiered('a', true, {}))], 'allow Tiered a ingress[0]'],
  [
    'an audited policy neither decides nor isolates',
    [{ ...tiered('a', true, { level: 'admin', verdict: 'deny' }), options: { mode: 'audit' } }],
    'allow default',
  ],
  ['some requests are not allowed where none is seen', [tiered('a', true, { requests: gets })], 'deny isolation'],
  [
    'some requests are all denied where none is seen',
    [tiered('a', false, { level: 'deny', verdict: 'deny', requests: gets })],
    'deny Tiered a ingress[0]',
  ],
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

test('a request that is known is decided exactly', () => {
  const flow = {
    source: { pod: 'shop/front-1' },
    destination: { pod: 'shop/cart' },
    protocol: 'TCP',
    port: 80,
  } as const;
  const request = (method: string) => ({ kind: 'http', method, target: '/', headers: [] }) as const;
  const allows = clusterWith([tiered('a', true, { requests: gets })]);
  const denies = clusterWith([tiered('a', false, { level: 'deny', verdict: 'deny', requests: gets })]);
  for (const [view, method, verdict] of [
    [allows, 'GET', 'allow'],
    [allows, 'PUT', 'deny'],
    [denies, 'GET', 'deny'],
    [denies, 'PUT', 'allow'],
  ] as const)
    assert.equal(decide(view, { ...flow, request: request(method) }).verdict, verdict);
});

test('ICMP by type and code', () => {
  const ends = { source: { pod: 'shop/front-1' }, destination: { pod: 'shop/cart' }, port: 0 } as const;
  const verdict = (match: IcmpMatch, protocol: 'ICMP' | 'ICMPv6', icmp?: { type: number; code: number }) => {
    const view = clusterWith([tiered('a', true, { ports: [match] })]);
    return decide(view, { ...ends, protocol, ...(icmp === undefined ? {} : { icmp }) }).verdict;
  };
  assert.equal(verdict({ protocol: 'ICMP', type: 8 }, 'ICMP'), 'allow', 'an echo request, if nothing else is said');
  assert.equal(verdict({ protocol: 'ICMPv6', type: 128, code: 0 }, 'ICMPv6'), 'allow');
  assert.equal(verdict({ protocol: 'ICMP', type: 8 }, 'ICMPv6'), 'deny');
  assert.equal(verdict({ protocol: 'ICMP' }, 'ICMP', { type: 13, code: 0 }), 'allow');
  assert.equal(verdict({ protocol: 'ICMP', type: 8 }, 'ICMP', { type: 13, code: 0 }), 'deny');
  assert.equal(verdict({ protocol: 'ICMP', type: 8, code: 1 }, 'ICMP', { type: 8, code: 0 }), 'deny');
});

test('whom peers are about', () => {
  const view = clusterWith([]);
  const pod = view.pods.get('shop/front-1');
  assert.ok(pod !== undefined);
  const everybody: Readonly<Record<string, RulePeer>> = {
    pod: { pod, address: parseIp('10.244.1.1') },
    own: { node: { name: 'node-1', own: true }, address: parseIp('192.168.0.1') },
    other: { node: { name: 'node-2', own: false }, address: parseIp('192.168.0.2') },
    world: { world: true, address: parseIp('198.51.100.9'), names: ['db.example.com'] },
  };
  const all = parsePrefix('0.0.0.0/0');
  const text = (words: string) => ({ op: 'exact', text: words }) as const;
  const matched: readonly [PeerMatch | NameMatch, string][] = [
    [{ kind: 'authenticated' }, 'pod'],
    [{ kind: 'world' }, 'world'],
    [{ kind: 'node', which: 'own' }, 'own'],
    [{ kind: 'node', which: 'other' }, 'other'],
    [{ kind: 'node', which: 'any' }, 'own other'],
    [{ kind: 'cidr', cidr: all, except: [] }, 'pod own other world'],
    [{ kind: 'cidr', cidr: all, except: [], worldOnly: true }, 'world'],
    [{ kind: 'name', pattern: { pattern: '**.example.com' } }, 'world'],
    [{ kind: 'name', pattern: { pattern: 'example.com' } }, ''],
    [{ kind: 'namespace', match: text('shop') }, 'pod'],
    [{ kind: 'account', match: text('nobody') }, ''],
    [{ kind: 'principal', match: { op: 'prefix', text: 'cluster.local/ns/shop/' } }, 'pod'],
    [{ kind: 'not', peer: { kind: 'authenticated' } }, 'own other world'],
    [{ kind: 'all', of: [] }, 'pod own other world'],
    [{ kind: 'some', of: [] }, ''],
    [
      {
        kind: 'all',
        of: [
          { kind: 'not', peer: { kind: 'world' } },
          { kind: 'not', peer: { kind: 'authenticated' } },
        ],
      },
      'own other',
    ],
  ];
  for (const [match, expected] of matched) {
    const found = Object.entries(everybody).flatMap(([name, peer]) => (matchesPeer(view, match, peer) ? [name] : []));
    assert.equal(found.join(' '), expected, JSON.stringify(match));
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
