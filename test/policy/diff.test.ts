import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Direction } from '../../src/model/verdict.ts';
import { compile } from '../../src/policy/compile.ts';
import { type PolicyFlow, resolveFlow } from '../../src/policy/decide.ts';
import { diff, type PolicyOperation } from '../../src/policy/diff.ts';
import type { PolicyImage } from '../../src/policy/image.ts';
import { lookup } from '../../src/policy/lookup.ts';
import type { ClusterView } from '../../src/policy/view.ts';
import { flowsArbitrary, flowsIn, policiesArbitrary, viewArbitrary } from '../support/arbitraries.ts';
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
    fc.property(fc.array(viewArbitrary(), { minLength: 1, maxLength: 4 }), (views) => {
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
      const old = compile(view, node);
      const next = compile(after, node, old);
      const state = new MapState(next);
      applyAll(state, diff(undefined, old));
      const probes = flowsIn(view, flows).flatMap((flow) => probesOf(view, flow));
      const opens = (image: PolicyImage) => probes.map((probe) => lookup(image, ...probe).verdict === 'allow');
      const [before, finally_] = [opens(old), opens(next)];
      for (const operation of diff(old, next)) {
        state.apply(operation);
        for (const [i, open] of opens(state.snapshot()).entries())
          assert.ok(!open || before[i] || finally_[i], `${operation.kind} opens ${JSON.stringify(probes[i])}`);
      }
    }),
    { numRuns: 400 },
  );
});

/** What is asked at this node's endpoints about a flow. */
function probesOf(
  view: ClusterView,
  flow: PolicyFlow,
): Parameters<typeof lookup> extends [unknown, ...infer Rest] ? Rest[] : never {
  const { source, destination, protocol, port } = resolveFlow(view, flow);
  const sides = [
    { own: source, other: destination, direction: 'egress' },
    { own: destination, other: source, direction: 'ingress' },
  ] as const;
  return sides.flatMap(({ own, other, direction }) => {
    if (own.kind !== 'pod' || own.pod.node !== node || other.address === undefined) return [];
    return [[own.pod.uid, direction satisfies Direction, other.address, protocol, port]];
  });
}

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
