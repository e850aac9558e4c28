import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseIp } from '../../../src/model/address.ts';
import type { PodView } from '../../../src/model/endpoint.ts';
import type { FlowEvent } from '../../../src/model/flow.ts';
import { reservedIdentity } from '../../../src/model/identity.ts';
import { decide } from '../../../src/policy/decide.ts';
import { parseNetworkPolicy } from '../../../src/policy/network-policy/parse.ts';
import { changedConnections } from '../../../src/policy/suggest/changes.ts';
import { type Suggestion, suggest } from '../../../src/policy/suggest/suggest.ts';
import { clusterWith, pod, policy } from '../../support/cluster.ts';

const pods: readonly PodView[] = [
  pod('shop/front-6f7d8c9b5-aaaaa', { app: 'front', 'pod-template-hash': '6f7d8c9b5' }, 'node-1', ['10.244.1.1']),
  pod('shop/front-6f7d8c9b5-bbbbb', { app: 'front', 'pod-template-hash': '6f7d8c9b5' }, 'node-2', ['10.244.2.1']),
  pod('shop/cart-0', { app: 'cart', tier: 'db' }, 'node-1', ['10.244.1.2']),
  pod('shop/spare-0', { app: 'cart', tier: 'spare' }, 'node-1', ['10.244.1.4']),
  pod('ops/scan', { app: 'front' }, 'node-2', ['10.244.2.2']),
  pod('ops/nameless', {}, 'node-2', ['10.244.2.3']),
];
const byName = new Map(pods.map((own) => [own.uid, own]));

type End = FlowEvent['source'];
function end(text: string, port: number): End {
  const found = byName.get(text);
  const base = { port, identity: reservedIdentity.any };
  if (found !== undefined)
    return {
      ...{ kind: 'pod', namespace: found.namespace, name: found.name, serviceAccount: 'default', node: found.node },
      ...{ ...base, address: found.addresses[0] ?? parseIp('0.0.0.0') },
    };
  const [namespace = '', name] = text.split('/');
  if (name !== undefined)
    return {
      ...base,
      kind: 'pod',
      namespace,
      name,
      serviceAccount: 'default',
      node: 'node-1',
      address: parseIp('10.244.9.9'),
    };
  if (text.startsWith('node-'))
    return { ...base, kind: 'node', name: text, address: parseIp(`192.168.0.${text.slice(5)}`) };
  return { ...base, kind: 'world', address: parseIp(text) };
}

function seen(from: string, to: string, port: number, own: Partial<FlowEvent> = {}): FlowEvent {
  return {
    kind: 'new',
    time: 1000,
    node: 'node-1',
    direction: 'ingress',
    protocol: 'TCP',
    source: end(from, 40000),
    destination: end(to, port),
    verdict: 'allow',
    packets: 1,
    bytes: 60,
    ...own,
  };
}

const front = 'shop/front-6f7d8c9b5-aaaaa';
const other = 'shop/front-6f7d8c9b5-bbbbb';
const short = (list: readonly Suggestion[], direction: 'ingress' | 'egress' = 'ingress') =>
  Object.fromEntries(
    list.map(({ namespace, name, ...own }) => [
      `${namespace}/${name}`,
      own[direction].map(({ peers, ports }) => [peers, ports.map(({ protocol, port }) => `${protocol} ${port}`)]),
    ]),
  );
const labelled = (labels: object) => ({ podSelector: { matchLabels: labels } });
const inNamespace = (name: string, labels: object) => ({
  namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': name } },
  podSelector: { matchLabels: labels },
});

test('pods of one workload are one peer, known by the fewest labels that are theirs alone', () => {
  const { policies, leftOut } = suggest([seen(front, 'shop/cart-0', 6379), seen(other, 'shop/cart-0', 6379)], pods);
  assert.deepEqual(leftOut, []);
  assert.deepEqual(short(policies), { 'shop/cart': [[[labelled({ app: 'front' })], ['TCP 6379']]], 'shop/front': [] });
  assert.deepEqual(short(policies, 'egress')['shop/front'], [[[labelled({ tier: 'db' })], ['TCP 6379']]]);
  // app=cart is the spare's, too.
  assert.deepEqual(policies[0]?.labels, { tier: 'db' });
});

test('peers of which the same ports were seen share a rule; another namespace is named', () => {
  const flows = [
    seen(front, 'shop/cart-0', 1),
    seen(front, 'shop/cart-0', 2),
    seen('ops/scan', 'shop/cart-0', 2),
    seen('ops/scan', 'shop/cart-0', 1),
    seen('ops/scan', front, 3, { protocol: 'UDP' }),
  ];
  assert.deepEqual(short(suggest(flows, pods, { namespace: 'shop', directions: ['ingress'] }).policies), {
    'shop/cart': [
      [
        [inNamespace('ops', { app: 'front' }), labelled({ app: 'front' })],
        ['TCP 1', 'TCP 2'],
      ],
    ],
    'shop/front': [[[inNamespace('ops', { app: 'front' })], ['UDP 3']]],
  });
});

test('the outside is its addresses, and everybody where they are many', () => {
  const few = suggest([seen('203.0.113.7', front, 80), seen('2001:db8::7', front, 80)], pods);
  assert.deepEqual(short(few.policies)['shop/front'], [
    [[{ ipBlock: { cidr: '2001:db8::7/128' } }, { ipBlock: { cidr: '203.0.113.7/32' } }], ['TCP 80']],
  ]);
  const many = suggest(
    Array.from({ length: 9 }, (_, i) => seen(`203.0.113.${i}`, front, 80)),
    pods,
  );
  assert.deepEqual(short(many.policies)['shop/front'], [[[{ ipBlock: { cidr: '0.0.0.0/0' } }], ['TCP 80']]]);
});

test('a pod’s own node needs no rule, another node does', () => {
  const flows = [seen('node-1', 'shop/cart-0', 80), seen('node-2', 'shop/cart-0', 81)];
  assert.deepEqual(short(suggest(flows, pods).policies), {
    'shop/cart': [[[{ ipBlock: { cidr: '192.168.0.2/32' } }], ['TCP 81']]],
  });
});

test('a pod that is gone is known by its workload', () => {
  const { policies } = suggest([seen('shop/front-5d5d5d5d5-zzzzz', 'shop/cart-0', 80)], pods);
  assert.deepEqual(short(policies)['shop/cart'], [[[labelled({ app: 'front' })], ['TCP 80']]]);
});

test('what is in no rule is said, with the reason', () => {
  const denied = seen(front, 'shop/cart-0', 22, { kind: 'deny', verdict: 'deny', reason: 'POLICY_DENIED' });
  const flows = [denied, seen(front, 'shop/cart-0', 0, { protocol: 'ICMP' }), seen('ops/nameless', 'shop/cart-0', 80)];
  const { policies, leftOut } = suggest(flows, pods);
  assert.deepEqual(policies, []);
  assert.deepEqual(leftOut.map((line) => line.replace(/^.*?: /, '')).sort(), [
    'a NetworkPolicy has no word for ICMP: only a rule without ports would allow it',
    'it was denied',
    'nobody knows who ops/nameless is',
    'nothing tells ops/nameless from other pods',
  ]);
  assert.equal(suggest([denied], pods, { includeDenied: true }).policies.length, 2);
});

test('egress may be allowed and ingress denied: that is denied', () => {
  const flows = [
    seen(front, 'shop/cart-0', 22, { direction: 'egress' }),
    seen(front, 'shop/cart-0', 22, { kind: 'deny', verdict: 'deny', reason: 'POLICY_DENIED' }),
  ];
  assert.equal(suggest(flows, pods).policies.length, 0);
});

test('each rule has the connections that it is for, counted once for both sides', () => {
  const flows = [
    seen(front, 'shop/cart-0', 80),
    seen(front, 'shop/cart-0', 80, { direction: 'egress' }),
    seen(front, 'shop/cart-0', 80, { kind: 'end' }),
    seen(front, 'shop/cart-0', 80),
  ];
  assert.deepEqual(suggest(flows, pods).policies[0]?.ingress[0]?.reasons, [`2 × ${front} → shop/cart-0 TCP 80`]);
});

function toPolicy({ namespace, name, labels, ingress, egress }: Suggestion) {
  const spec = {
    podSelector: { matchLabels: labels },
    policyTypes: ['Ingress', 'Egress'],
    ingress: ingress.map(({ peers, ports }) => ({ from: peers, ports })),
    egress: egress.map(({ peers, ports }) => ({ to: peers, ports })),
  };
  const parsed = parseNetworkPolicy({ metadata: { namespace, name }, spec });
  assert.ok(parsed.ok, JSON.stringify(parsed));
  return parsed.policy;
}

test('under what is suggested everything that was seen goes on, and between those pods nothing else', () => {
  const callers = [front, other, 'shop/cart-0', 'shop/spare-0', 'ops/scan'];
  const port = fc.constantFrom(80, 81);
  const flow = fc.record({
    from: fc.constantFrom(...callers, '203.0.113.7', 'node-2'),
    to: fc.constantFrom(...callers),
    port,
  });
  const spaces = new Map(['shop', 'ops'].map((name) => [name, { 'kubernetes.io/metadata.name': name }]));
  fc.assert(
    fc.property(fc.array(flow, { minLength: 1, maxLength: 12 }), flow, (flows, probe) => {
      const { policies, leftOut } = suggest(
        flows.map(({ from, to, port: at }) => seen(from, to, at)),
        pods,
      );
      assert.deepEqual(leftOut, []);
      const view = clusterWith(policies.map(toPolicy), { pods: byName, namespaces: spaces });
      const ends = (text: string) =>
        byName.has(text) ? { pod: text } : text.startsWith('node-') ? { host: text } : { address: parseIp(text) };
      const verdict = ({ from, to, port: at }: { from: string; to: string; port: number }) =>
        decide(view, { source: ends(from), destination: ends(to), protocol: 'TCP', port: at }).verdict;
      for (const one of flows) assert.equal(verdict(one), 'allow', JSON.stringify(one));
      const workload = (text: string) => text.replace(/-6f7d8c9b5-.*/, '');
      const alike = ({ from, to, port: at }: typeof probe) => `${workload(from)} ${workload(to)} ${at}`;
      // A pod reaches itself, and its node it, whatever policy says.
      const exempt = ({ from, to }: typeof probe) => from === to || byName.get(to)?.node === from;
      const took = new Set(
        flows.filter((one) => !exempt(one)).flatMap(({ from, to }) => [workload(from), workload(to)]),
      );
      const wasSeen = flows.some((one) => alike(one) === alike(probe));
      if (!wasSeen && !exempt(probe) && took.has(workload(probe.to)))
        assert.equal(verdict(probe), 'deny', JSON.stringify(probe));
    }),
    { numRuns: 500 },
  );
});

test('which recorded connections other policies would decide otherwise', () => {
  const spaces = new Map(['shop', 'ops'].map((name) => [name, {}]));
  const base = { pods: byName, namespaces: spaces };
  const closed = policy('p', {
    podSelector: { matchLabels: { app: 'cart' } },
    ingress: [{ from: [{ podSelector: {} }] }],
  });
  const flows = [
    seen(front, 'shop/cart-0', 80),
    seen('shop/front-5d5d5d5d5-zzzzz', 'shop/cart-0', 80),
    seen('ops/scan', 'shop/cart-0', 80),
    seen('203.0.113.7', 'shop/cart-0', 80),
    seen('ops/gone', 'shop/cart-0', 80),
  ];
  const report = changedConnections(clusterWith([], base), clusterWith([closed], base), flows);
  assert.deepEqual(
    report.changed.map(({ connection, before, after }) => [connection.source.address, before.verdict, after.verdict]),
    [
      ['10.244.2.2', 'allow', 'deny'],
      ['203.0.113.7', 'allow', 'deny'],
    ],
  );
  assert.deepEqual([report.judged, report.unknown.length], [4, 1]);
});
