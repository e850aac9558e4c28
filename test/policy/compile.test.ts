import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseIp } from '../../src/model/address.ts';
import { reservedIdentity } from '../../src/model/identity.ts';
import { Numbers } from '../../src/policy/compile/numbers.ts';
import { compile } from '../../src/policy/compile.ts';
import { diff } from '../../src/policy/diff.ts';
import {
  anyProtocolProbe,
  noSet,
  type PolicyImage,
  reservedRules,
  ruleSetFlags,
  setIdOf,
  stages,
} from '../../src/policy/image.ts';
import { findPeer, identityOf, lookup } from '../../src/policy/lookup.ts';
import type { ClusterView } from '../../src/policy/view.ts';
import { assertAgreement } from '../support/agreement.ts';
import { flowsArbitrary, flowsIn, historyArbitrary, viewArbitrary } from '../support/arbitraries.ts';
import { clusterWith, pod, pods, policy } from '../support/cluster.ts';

const node = 'node-1';
const directions = ['ingress', 'egress'] as const;
const front = { matchLabels: { app: 'front' } };
const cart = { matchLabels: { app: 'cart' } };
const byUid = (own: typeof pods) => new Map(own.map((one) => [one.uid, one]));

test('the same input gives the same image, in whatever order its parts come', () => {
  fc.assert(
    fc.property(viewArbitrary(), (view) => {
      const backwards = <K, V>(map: ReadonlyMap<K, V>) => new Map([...map].reverse());
      const other: ClusterView = {
        ...structuredClone(view),
        pods: backwards(view.pods),
        namespaces: backwards(view.namespaces),
        nodes: backwards(view.nodes),
        policies: [...view.policies].reverse(),
      };
      assert.deepEqual(compile(other, node), compile(view, node));
    }),
    { numRuns: 300 },
  );
});

test('compiling again what did not change changes nothing, also where every object was made anew', () => {
  fc.assert(
    fc.property(viewArbitrary(), (view) => {
      const image = compile(view, node);
      const again = compile(view, node, image);
      assert.deepEqual(again, image);
      for (const [id, set] of again.ruleSets) assert.equal(set, image.ruleSets.get(id));
      const anew = compile(structuredClone(view), node, image);
      assert.deepEqual(anew, image);
      assert.deepEqual(diff(image, anew), []);
    }),
    { numRuns: 300 },
  );
});

test('from image to image numbers keep their meaning, are never given again, and decide as the reference does', () => {
  fc.assert(
    fc.property(historyArbitrary(), flowsArbitrary(15, { requests: true }), (views, flows) => {
      const meanings = new Map<string, unknown>();
      let image: PolicyImage | undefined;
      for (const view of views) {
        const before = image;
        image = compile(view, node, before);
        for (const flow of flowsIn(view, flows)) assertAgreement(view, image, flow);
        const meaning = (number: string, what: unknown) => {
          assert.deepEqual(meanings.get(number) ?? what, what, number);
          meanings.set(number, what);
        };
        for (const [number, { key }] of image.identities) meaning(`identity ${number}`, key);
        for (const [number, ref] of image.rules) meaning(`rule ${number}`, ref);
        for (const [id, { key }] of image.ruleSets) meaning(`set ${id}`, key);
        if (before === undefined) continue;
        // What is in both images under the same key has the same number.
        const old = new Map([...before.identities].map(([number, { key }]) => [key, number]));
        for (const [number, { key }] of image.identities) assert.equal(old.get(key) ?? number, number);
      }
    }),
    { numRuns: 300 },
  );
});

test('an image holds together', () => {
  fc.assert(
    fc.property(viewArbitrary(), (view) => {
      const image = compile(view, node);
      const local = [...view.pods.values()].filter((own) => own.node === node && !own.hostNetwork);
      assert.deepEqual([...image.endpoints.keys()].sort(), local.map(({ uid }) => uid).sort());
      const used = new Set(
        [...image.endpoints.values()]
          .flatMap((endpoint) => [endpoint, ...(endpoint.audit === undefined ? [] : [endpoint.audit])])
          .flatMap((sets) => directions.flatMap((direction) => stages.map((stage) => setIdOf(sets, direction, stage)))),
      );
      for (const { asks, lenient, accepts } of image.matchers.values())
        for (const { admin, network, mesh } of [lenient, ...accepts.map(({ sets }) => sets)]) {
          assert.equal(network !== noSet, asks);
          for (const id of [admin, network, mesh]) used.add(id);
        }
      used.delete(noSet);
      assert.deepEqual(new Set(image.ruleSets.keys()), used);
      const matchers = new Set([...image.endpoints.values()].map(({ names }) => names));
      matchers.delete(0);
      assert.deepEqual(new Set(image.matchers.keys()), matchers);
      for (const { ingressSet, egressSet } of image.endpoints.values())
        assert.ok(ingressSet !== noSet && egressSet !== noSet);
      const places = new Set([...image.identities.keys(), ...Object.values(reservedIdentity)]);
      const known = new Set([...places, ...image.patterns.keys()]);
      for (const { identity } of [...image.peers.values(), ...image.prefixes.values()]) assert.ok(places.has(identity));
      for (const set of image.ruleSets.values()) {
        const keys = set.entries.map((entry) => [entry.identity, entry.protocol, entry.port, entry.portLength].join());
        assert.equal(new Set(keys).size, keys.length, 'no two entries with one key');
        const { alternatives = [], tables } = set.matcher ?? {};
        const deciding = [...set.entries.filter(({ verdict }) => verdict !== 'none'), ...alternatives];
        const rules = new Map(deciding.map(({ precedence, rule }) => [precedence, rule]));
        let probes = 0;
        for (const { identity, protocol, port, portLength, verdict, requests } of set.entries) {
          probes |= protocol === 0 ? anyProtocolProbe : 1 << portLength;
          assert.ok(known.has(identity));
          assert.equal(port % 2 ** (16 - portLength), 0);
          assert.ok(verdict !== 'none' || requests !== undefined, 'what stands at a key is something');
          for (const [i, number] of (requests ?? [-1]).entries())
            assert.ok(number < alternatives.length && (i === 0 || number > (requests?.[i - 1] ?? 0)));
        }
        for (const { precedence, rule } of deciding) {
          assert.ok(image.rules.has(rule));
          assert.equal(rules.get(precedence), rule, 'one precedence, one rule');
          assert.ok(precedence > 0 && precedence <= 0xffff_ffff);
        }
        assert.equal(tables?.count ?? 0, alternatives.length);
        const order = alternatives.map(({ precedence }) => precedence);
        assert.deepEqual(
          order,
          order.toSorted((a, b) => b - a),
          'the first alternative decides first',
        );
        assert.equal(set.probes, probes);
        assert.equal(set.rule !== reservedRules.none, (set.flags & ruleSetFlags.isolated) !== 0);
      }
    }),
    { numRuns: 500 },
  );
});

test('no entry is there in vain: without it some flow would be decided by another', () => {
  fc.assert(
    fc.property(viewArbitrary(), (view) => {
      for (const { entries, matcher } of compile(view, node).ruleSets.values())
        for (const entry of entries) {
          const alternatives = (entry.requests ?? []).map((number) => matcher?.alternatives[number]?.precedence ?? 0);
          const broader = entries.filter(
            (other) =>
              other !== entry &&
              other.verdict !== 'none' &&
              [entry.identity, reservedIdentity.any].includes(other.identity) &&
              [entry.protocol, 0].includes(other.protocol) &&
              other.portLength <= entry.portLength &&
              entry.port >> (16 - other.portLength) === other.port >> (16 - other.portLength),
          );
          assert.ok(
            broader.every(({ precedence }) =>
              [entry.precedence, ...alternatives].every((own) => own === 0 || precedence < own),
            ),
            JSON.stringify([entry, broader]),
          );
        }
    }),
    { numRuns: 300 },
  );
});

test('replicas share one identity and one pair of rule sets, whatever their controllers write on them', () => {
  const replicas = Array.from({ length: 20 }, (_, i) =>
    pod(
      `shop/r${i}`,
      { app: 'front', 'pod-template-hash': `h${i}`, 'statefulset.kubernetes.io/pod-name': `r${i}` },
      node,
      [`10.244.1.${100 + i}`],
    ),
  );
  const policies = [
    policy('in', { podSelector: front, ingress: [{ from: [{ podSelector: front }], ports: [{ port: 80 }] }] }),
  ];
  const image = compile(clusterWith(policies, { pods: byUid(replicas) }), node);
  assert.equal(image.identities.size, 1);
  assert.equal(image.ruleSets.size, 2);
  assert.equal([...image.ruleSets.values()].flatMap(({ entries }) => entries).length, 1);
});

test('a replica’s own label counts as soon as a policy names it', () => {
  const plain = pod('shop/plain', { app: 'front' }, node, ['10.244.1.9']);
  const hashed = [1, 2].map((i) =>
    pod(`shop/r${i}`, { app: 'front', 'pod-template-hash': `h${i}` }, node, [`10.244.1.${i}`]),
  );
  const replicas = [plain, ...hashed];
  const one = { matchLabels: { 'pod-template-hash': 'h1' } };
  const before = compile(clusterWith([], { pods: byUid(replicas) }), node);
  const view = clusterWith([policy('in', { podSelector: front, ingress: [{ from: [{ podSelector: one }] }] })], {
    pods: byUid(replicas),
  });
  const image = compile(view, node, before);
  assert.equal(before.identities.size, 1);
  assert.equal(image.identities.size, 3);
  // The old number stood for all of them: it must not go on as one of them.
  for (const number of before.identities.keys()) assert.ok(!image.identities.has(number));
});

test('both addresses of a pod have one identity, until a policy’s CIDR tells them apart', () => {
  const before = compile(clusterWith([]), node);
  const [four, six] = ['10.244.1.2', 'fd00:10:244:1::2'].map(parseIp);
  assert.ok(four !== undefined && six !== undefined);
  assert.equal(identityOf(before, 'shop/cart', four), identityOf(before, 'shop/cart', six));
  const view = clusterWith([
    policy('in', { podSelector: front, ingress: [{ from: [{ ipBlock: { cidr: '10.0.0.0/8' } }] }] }),
  ]);
  const image = compile(view, node, before);
  assert.notEqual(identityOf(image, 'shop/cart', four), identityOf(image, 'shop/cart', six));
  const { identity4, identity6 } = image.endpoints.get('shop/cart') ?? {};
  assert.deepEqual([identity4, identity6], [identityOf(image, 'shop/cart', four), identityOf(image, 'shop/cart', six)]);
  // Not the pod's, though an address that is known.
  assert.equal(identityOf(image, 'shop/front-1', four), undefined);
});

test('where a hole with pods in it is cut into a region, what is left of the region gets new numbers', () => {
  const block = (except: string[]) =>
    policy('in', { podSelector: front, ingress: [{ from: [{ ipBlock: { cidr: '10.0.0.0/8', except } }] }] });
  const whole = compile(clusterWith([block([])]), node);
  const cut = compile(clusterWith([block(['10.244.2.0/24'])]), node, whole);
  const mine = parseIp('10.244.1.1');
  assert.notEqual(identityOf(whole, 'shop/front-1', mine), identityOf(cut, 'shop/front-1', mine));
  // A hole that nobody lives in is none of theirs.
  const elsewhere = compile(clusterWith([block(['10.1.0.0/16'])]), node, whole);
  assert.equal(identityOf(whole, 'shop/front-1', mine), identityOf(elsewhere, 'shop/front-1', mine));
});

test('regions may change where identities do not', () => {
  const here = byUid(
    pods.filter((own) => own.node === node).map((own) => ({ ...own, addresses: own.addresses.slice(0, 1) })),
  );
  const block = (cidr: string) =>
    clusterWith(
      [
        policy('in', { podSelector: cart, ingress: [{ from: [{ ipBlock: { cidr } }] }] }),
        policy('z', {
          podSelector: cart,
          ingress: [{ from: [{ ipBlock: { cidr: '10.244.1.0/24' } }], ports: [{ port: 1 }] }],
        }),
      ],
      { pods: here },
    );
  const before = compile(block('10.244.1.0/24'), node);
  const after = compile(block('10.244.0.0/16'), node, before);
  assert.deepEqual([...after.identities.keys()], [...before.identities.keys()]);
  assert.equal(lookup(after, 'shop/cart', 'ingress', parseIp('10.244.1.1'), 'TCP', 80).verdict, 'allow');
});

test('all of IPv6 does not hold IPv4, though the map’s one address space has it there', () => {
  const image = compile(
    clusterWith([policy('out', { podSelector: front, egress: [{ to: [{ ipBlock: { cidr: '::/0' } }] }] })]),
    node,
  );
  assert.equal(findPeer(image, parseIp('8.8.8.8')).identity, reservedIdentity.world);
  assert.notEqual(findPeer(image, parseIp('2001:db8::1')).identity, reservedIdentity.world);
});

test('what is not this node’s is not there', () => {
  const image = compile(clusterWith([policy('ops/deny', { podSelector: {} })]), node);
  assert.equal(lookup(image, 'ops/scan', 'ingress', parseIp('10.244.1.1'), 'TCP', 80).reason, 'ENDPOINT_NOT_READY');
  assert.equal(image.rules.size, Object.keys(reservedRules).length - 1);
});

test('CIDRs of policies that select nobody here make no regions here', () => {
  const block = policy('ops/in', { podSelector: {}, ingress: [{ from: [{ ipBlock: { cidr: '10.0.0.0/8' } }] }] });
  const image = compile(clusterWith([block]), node);
  assert.deepEqual(
    [...image.prefixes.values()].filter(({ kind }) => kind === 'world'),
    [],
  );
});

test('a set that isolates and one that does not', () => {
  const image = compile(clusterWith([policy('in', { podSelector: cart })]), node);
  const { ingressSet = 0, egressSet = 0 } = image.endpoints.get('shop/cart') ?? {};
  const isolating = image.ruleSets.get(ingressSet);
  assert.deepEqual(image.rules.get(isolating?.rule ?? 0), {
    kind: 'NetworkPolicy',
    namespace: 'shop',
    name: 'in',
    direction: 'ingress',
    index: -1,
  });
  assert.equal(image.ruleSets.get(egressSet)?.rule, reservedRules.none);
});

test('conflicts are told', () => {
  const thief = pod('ops/thief', {}, 'node-2', ['10.244.1.1', '192.168.0.1']);
  const image = compile(clusterWith([], { pods: byUid([...pods, thief]) }), node);
  assert.deepEqual(image.conflicts, [
    { address: '10.244.1.1', owners: ['ops/thief', 'shop/front-1'] },
    { address: '192.168.0.1', owners: ['node-1', 'ops/thief'] },
  ]);
  assert.equal(image.endpoints.get('shop/front-1')?.identity4, reservedIdentity.any);
});

test('an address that one pod or node lists twice is no conflict', () => {
  const twice = pod('shop/twice', {}, node, ['10.244.1.9', '10.244.1.9']);
  assert.deepEqual(compile(clusterWith([], { pods: byUid([twice]) }), node).conflicts, []);
});

test('a number that falls free is not given again before all others were', () => {
  const numbers = new Numbers(new Map([['a', 12]]), 13, { first: 10, last: 14 });
  assert.deepEqual([...numbers.assign(['c', 'a', 'b'])].sort(), [
    ['a', 12],
    ['b', 13],
    ['c', 14],
  ]);
  assert.equal(numbers.next, 10);
  assert.deepEqual([numbers.fresh(), numbers.fresh()], [10, 11]);
  assert.equal(numbers.fresh(), 13, 'round the one that is in use');
  const full = new Numbers(
    new Map([
      ['a', 10],
      ['b', 11],
    ]),
    10,
    { first: 10, last: 11 },
  );
  assert.throws(() => full.fresh(), { code: 'NumbersExhausted' });
});
