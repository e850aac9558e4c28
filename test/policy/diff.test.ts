import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseIp } from '../../src/model/address.ts';
import { compile } from '../../src/policy/compile.ts';
import { type PolicyFlow, resolveFlow } from '../../src/policy/decide.ts';
import { diff, type PolicyOperation } from '../../src/policy/diff.ts';
import type { PolicyImage } from '../../src/policy/image.ts';
import { lookup } from '../../src/policy/lookup.ts';
import type { ClusterView } from '../../src/policy/view.ts';
import { flowsArbitrary, flowsIn, historyArbitrary, policiesArbitrary, viewArbitrary } from '../support/arbitraries.ts';
import { clusterWith, pod, type pods, policy } from '../support/cluster.ts';
import { MapState, mapsOf } from '../support/map-state.ts';

const node = 'node-1';
const front = { matchLabels: { app: 'front' } };
const cart = { matchLabels: { app: 'cart' } };

function applyAll(state: MapState, operations: readonly PolicyOperation[]): void {
  for (const operation of operations) state.apply(operation);
}

test('applied to the old maps, the steps make the new ones, with nothing left over', () => {
  fc.assert(
    fc.property(fc.oneof(historyArbitrary(), fc.array(viewArbitrary(), { minLength: 1, maxLength: 4 })), (views) => {
      let image: PolicyImage | undefined;
      let state: MapState | undefined;
      for (const view of views) {
        const next = compile(view, node, image);
        state ??= new MapState(next);
        applyAll(state, diff(image, next));
        assert.deepEqual(mapsOf(state.snapshot()), mapsOf(next));
        assert.equal(state.entries.size, [...next.ruleSets.values()].flatMap(({ entries }) => entries).length);
        image = next;
      }
    }),
    { numRuns: 400 },
  );
});

type Probe = Parameters<typeof lookup> extends [unknown, ...infer Rest] ? Rest : never;

/** What is asked at this node's endpoints about a flow. */
function probesOf(view: ClusterView, flow: PolicyFlow): Probe[] {
  const { source, destination, protocol, port } = resolveFlow(view, flow);
  const sides = [
    { own: source, other: destination, direction: 'egress' },
    { own: destination, other: source, direction: 'ingress' },
  ] as const;
  return sides.flatMap(({ own, other, direction }): Probe[] => {
    if (own.kind !== 'pod' || own.pod.node !== node || other.address === undefined) return [];
    return [[own.pod.uid, direction, other.address, protocol, port]];
  });
}

/** @returns How many of the probes are closed before and after: those that a wrong order could open. */
function assertNothingOpens(before: ClusterView, after: ClusterView, flows: readonly PolicyFlow[]): number {
  const old = compile(before, node);
  const next = compile(after, node, old);
  const state = new MapState(next);
  applyAll(state, diff(undefined, old));
  const allows = (image: PolicyImage, probe: Probe) => lookup(image, ...probe).verdict === 'allow';
  const probes = flows.flatMap((flow) => probesOf(before, flow));
  const closed = probes.filter((probe) => !allows(old, probe) && !allows(next, probe));
  for (const operation of diff(old, next)) {
    state.apply(operation);
    const now = state.snapshot();
    for (const probe of closed) assert.ok(!allows(now, probe), `${short(operation)} opens ${JSON.stringify(probe)}`);
  }
  return closed.length;
}

test('while policies change, no step lets through what neither the old nor the new policies do', () => {
  const change = fc.record({
    view: viewArbitrary({ tiered: false }),
    added: policiesArbitrary({ maxLength: 3 }),
    kept: fc.array(fc.boolean(), { minLength: 5, maxLength: 5 }),
  });
  fc.assert(
    fc.property(change, flowsArbitrary(20), ({ view, added, kept }, flows) => {
      const renamed = added.map((own) => ({ ...own, name: `new-${own.name}` }));
      const after = { ...view, policies: [...view.policies.filter((_, i) => kept[i]), ...renamed] };
      assertNothingOpens(view, after, flowsIn(view, flows));
    }),
    { numRuns: 400 },
  );
});

/** Rules of one pod's egress before and after, and a stranger whom neither reach on these ports. */
const openings: readonly { name: string; before: object[]; after: object[]; stranger: string; ports: number[] }[] = [
  {
    name: 'a hole cut into a block that is there, while the ports change',
    before: [{ to: [{ ipBlock: { cidr: '8.0.0.0/8' } }], ports: [{ port: 80 }] }],
    after: [{ to: [{ ipBlock: { cidr: '8.0.0.0/8', except: ['8.8.0.0/16'] } }], ports: [{ port: 443 }] }],
    stranger: '8.8.8.8',
    ports: [443],
  },
  {
    name: 'a hole filled, while the ports change',
    before: [{ to: [{ ipBlock: { cidr: '8.0.0.0/8', except: ['8.8.0.0/16'] } }], ports: [{ port: 443 }] }],
    after: [{ to: [{ ipBlock: { cidr: '8.0.0.0/8' } }], ports: [{ port: 80 }] }],
    stranger: '8.8.8.8',
    ports: [443],
  },
  {
    name: 'a block with a hole that is new',
    before: [{ to: [{ ipBlock: { cidr: '9.0.0.0/8' } }] }],
    after: [{ to: [{ ipBlock: { cidr: '8.0.0.0/8', except: ['8.8.0.0/16'] } }] }],
    stranger: '8.8.8.8',
    ports: [443],
  },
  {
    name: 'a block with a hole that goes',
    before: [{ to: [{ ipBlock: { cidr: '8.0.0.0/8', except: ['8.8.0.0/16'] } }] }],
    after: [{ to: [{ ipBlock: { cidr: '9.0.0.0/8' } }] }],
    stranger: '8.8.8.8',
    ports: [443],
  },
  {
    name: 'all of IPv6 comes',
    before: [{ to: [{ ipBlock: { cidr: 'fd99::/16' } }] }],
    after: [{ to: [{ ipBlock: { cidr: '::/0' } }] }],
    stranger: '8.8.8.8',
    ports: [443],
  },
  {
    name: 'all of IPv6 goes',
    before: [{ to: [{ ipBlock: { cidr: '::/0' } }] }],
    after: [{ to: [{ ipBlock: { cidr: 'fd99::/16' } }] }],
    stranger: '8.8.8.8',
    ports: [443],
  },
];

for (const { name, before, after, stranger, ports } of openings)
  test(`nothing opens in between: ${name}`, () => {
    const view = (egress: object[]) =>
      clusterWith([policy('out', { podSelector: front, policyTypes: ['Egress'], egress })]);
    const flows = ports.map((port) => ({
      source: { pod: 'shop/front-1' },
      destination: { address: parseIp(stranger) },
      protocol: 'TCP' as const,
      port,
    }));
    assert.equal(assertNothingOpens(view(before), view(after), flows), flows.length);
  });

test('as long as entries of both images are there, both are probed for', () => {
  const named = pod('ops/new', { app: 'new' }, 'node-2', ['10.244.2.9'], {
    namedPorts: [{ name: 'odd', protocol: 'TCP', port: 77 }],
  });
  const out = policy('out', {
    podSelector: front,
    egress: [{ to: [{ namespaceSelector: {} }], ports: [{ port: 'odd' }, { port: 1024, endPort: 2047 }] }],
  });
  const old = compile(withPod(clusterWith([out]), named), node);
  const operations = diff(old, compile(clusterWith([out]), node, old)).map(short);
  assert.deepEqual(operations, ['delete-peer 10.244.2.9', 'put-rule-set', 'delete-entries 2']);
});

test('at first everything is put, and endpoints only when their rule sets are there', () => {
  const kinds = diff(
    undefined,
    compile(clusterWith([policy('in', { podSelector: {}, ingress: [{ from: [{ podSelector: {} }] }] })]), node),
  ).map(({ kind }) => kind);
  assert.ok(!kinds.some((kind) => kind.startsWith('delete')));
  assert.ok(kinds.lastIndexOf('put-rule-set') < kinds.indexOf('put-endpoint'));
  assert.ok(kinds.lastIndexOf('put-entries') < kinds.indexOf('put-rule-set'));
});

interface Step {
  readonly name: string;
  readonly before: ClusterView;
  readonly after: ClusterView;
  /** The steps, in short: kind and what it is about. */
  readonly steps: readonly string[];
}

const inner = policy('in', { podSelector: cart, ingress: [{ from: [{ podSelector: front }], ports: [{ port: 80 }] }] });
const anywhere = policy('any', {
  podSelector: cart,
  ingress: [{ from: [{ namespaceSelector: {} }], ports: [{ port: 80 }] }],
});
const withPod = (view: ClusterView, own: (typeof pods)[number]): ClusterView => ({
  ...view,
  pods: new Map([...view.pods, [own.uid, own]]),
});
const withoutPod = (view: ClusterView, uid: string): ClusterView => ({
  ...view,
  pods: new Map([...view.pods].filter(([own]) => own !== uid)),
});
const replica = pod('shop/front-3', { app: 'front' }, 'node-2', ['10.244.2.9']);
const stranger = pod('ops/new', { app: 'new' }, 'node-2', ['10.244.2.9']);

const steps: readonly Step[] = [
  {
    name: 'a replica on another node is one address',
    before: clusterWith([inner]),
    after: withPod(clusterWith([inner]), replica),
    steps: ['put-peer 10.244.2.9'],
  },
  {
    name: 'a pod of a new kind that rules are about gets its entries first, in the sets that are there',
    before: clusterWith([anywhere]),
    after: withPod(clusterWith([anywhere]), stranger),
    steps: ['put-entries 1', 'put-peer 10.244.2.9'],
  },
  {
    name: 'one that goes loses its address first',
    before: withPod(clusterWith([anywhere]), stranger),
    after: clusterWith([anywhere]),
    steps: ['delete-peer 10.244.2.9', 'delete-entries 1'],
  },
  {
    name: 'a policy changes the endpoints that it selects and no others',
    before: clusterWith([]),
    after: clusterWith([inner]),
    steps: ['put-entries 1', 'put-rule-set', 'put-endpoint shop/cart'],
  },
  {
    name: 'what a rule says may change under the same name',
    before: clusterWith([inner]),
    after: clusterWith([
      policy('in', { podSelector: cart, ingress: [{ from: [{ podSelector: front }], ports: [{ port: 81 }] }] }),
    ]),
    steps: ['put-entries 1', 'put-rule-set', 'put-endpoint shop/cart', 'delete-rule-set', 'delete-entries 1'],
  },
  {
    name: 'labels of a namespace that no rule asks for are nothing',
    before: clusterWith([inner]),
    after: {
      ...clusterWith([inner]),
      namespaces: new Map([
        ['shop', { team: 'z' }],
        ['ops', {}],
      ]),
    },
    steps: [],
  },
  {
    name: 'a stranger’s prefix is placed before the rules that are about it, and taken back after',
    before: clusterWith([
      policy('out', { podSelector: front, egress: [{ to: [{ ipBlock: { cidr: '8.0.0.0/8' } }] }] }),
    ]),
    after: clusterWith([policy('out', { podSelector: front, egress: [{ to: [{ ipBlock: { cidr: '9.0.0.0/8' } }] }] })]),
    steps: ['put-entries 1', 'put-prefix 9.0.0.0/8', 'delete-prefix 8.0.0.0/8', 'delete-entries 1'],
  },
  {
    name: 'a local pod that goes takes its sets along',
    before: clusterWith([inner]),
    after: withoutPod(clusterWith([inner]), 'shop/cart'),
    steps: [
      'delete-endpoint shop/cart',
      'delete-peer 10.244.1.2',
      'delete-peer fd00:10:244:1::2',
      'delete-rule-set',
      'delete-entries 1',
    ],
  },
];

for (const { name, before, after, steps: expected } of steps)
  test(name, () => {
    const old = compile(before, node);
    const operations = diff(old, compile(after, node, old));
    assert.deepEqual(operations.map(short), expected);
  });

function short(operation: PolicyOperation): string {
  switch (operation.kind) {
    case 'put-entries':
    case 'delete-entries':
      return `${operation.kind} ${operation.entries.length}`;
    case 'put-peer':
    case 'delete-peer':
      return `${operation.kind} ${operation.address}`;
    case 'put-prefix':
    case 'delete-prefix':
      return `${operation.kind} ${operation.prefix}`;
    case 'put-endpoint':
    case 'delete-endpoint':
      return `${operation.kind} ${operation.uid}`;
    default:
      return operation.kind;
  }
}
