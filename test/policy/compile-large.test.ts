import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cluster, podAt, policyAt, scale } from '../../bench/support/policy-cluster.ts';
import { changed, differences } from '../../src/model/versions.ts';
import { compile } from '../../src/policy/compile.ts';
import { diff } from '../../src/policy/diff.ts';
import type { PolicyImage } from '../../src/policy/image.ts';
import type { ClusterView } from '../../src/policy/view.ts';
import { MapState } from '../support/map-state.ts';

const node = 'node-7';

/** A tenth of the bench's pods and policies: enough for maps in parts. */
function small(): ClusterView {
  const whole = cluster();
  const kept = new Map([...whole.pods].slice(0, 5000));
  return { ...whole, pods: changed(new Map(), kept), policies: whole.policies.slice(0, 700) };
}

/** What an image says, in words in place of its own numbers. */
function meaning(image: PolicyImage) {
  const keys = new Map<number, string>([...image.identities].map(([number, { key }]) => [number, key]));
  const name = (identity: number): string => keys.get(identity) ?? `${identity}`;
  const sets = new Map(
    [...image.ruleSets].map(([id, { direction, stage, probes, flags, rule, entries }]) => {
      const told = entries.map((entry) => ({
        ...entry,
        identity: name(entry.identity),
        rule: image.rules.get(entry.rule),
      }));
      const text = told.map((entry) => JSON.stringify(entry)).sort();
      return [id, JSON.stringify({ direction, stage, probes, flags, rule: image.rules.get(rule), text })] as const;
    }),
  );
  const setOf = (id: number): string => (id === 0 ? 'none' : (sets.get(id) ?? 'missing'));
  return {
    peers: new Map(
      [...image.peers].map(([at, { identity, kind, owner }]) => [at, `${name(identity)} ${kind} ${owner}`]),
    ),
    prefixes: new Map([...image.prefixes].map(([prefix, { identity, kind }]) => [prefix, `${name(identity)} ${kind}`])),
    endpoints: new Map(
      [...image.endpoints].map(([uid, endpoint]) => [
        uid,
        [
          name(endpoint.identity4),
          ...[endpoint.ingressAdminSet, endpoint.ingressSet, endpoint.ingressMeshSet].map(setOf),
          ...[endpoint.egressAdminSet, endpoint.egressSet, endpoint.egressMeshSet].map(setOf),
        ].join('\n'),
      ]),
    ),
  };
}

test('in a large cluster, what is compiled step by step is what is compiled at once, and so is what the maps get', () => {
  let view = small();
  let image = compile(view, node);
  const maps = new MapState(image);
  for (const operation of diff(undefined, image)) maps.apply(operation);
  const local = [...view.pods.values()].filter((pod) => pod.node === node).map(({ uid }) => Number(uid.slice(4)));
  assert(local.length > 3);
  const at = (n: number): number => local[n % local.length] ?? 0;
  const withPod = (i: number, change: Parameters<typeof podAt>[1]): ClusterView => {
    const pod = podAt(i, change);
    return { ...view, pods: changed(view.pods, new Map([[pod.uid, pod]])) };
  };
  const withPolicy = (i: number, version: number): ClusterView => {
    const [made] = policyAt(i, version);
    assert(made !== undefined);
    const others = view.policies.filter((one) => one.name !== made.name || one.kind !== made.kind);
    return { ...view, policies: [...others, made] };
  };
  const changes: readonly ((n: number) => ClusterView)[] = [
    (n) => withPod((n * 7919) % 5000, { labels: { app: `service-${n % 20}`, tier: 'back' } }),
    (n) => withPod(at(n), { labels: { app: `service-${n % 20}`, tier: 'front' } }),
    (n) => withPolicy((at(n) % scale.namespaces) + (n % 2) * scale.namespaces, n),
    (n) => ({ ...view, pods: changed(view.pods, new Map([[`pod-${n * 31}`, undefined]])) }),
    (n) => withPod(5000 + n, { node: n % 2 === 0 ? node : 'node-1' }),
    // An address that was another's, and one that two claim.
    (n) => withPod((n * 31) % 5000, { addresses: podAt((n * 31 + 1) % 5000).addresses }),
  ];
  for (let n = 0; n < 48; n++) {
    const before = view;
    view = (changes[n % changes.length] ?? (() => view))(n);
    assert([...differences(before.pods, view.pods)].length <= 1);
    const next = compile(view, node, image);
    for (const operation of diff(image, next)) maps.apply(operation);
    image = next;
    if (n % 6 === 5) {
      assert.deepEqual(meaning(image), meaning(compile(view, node)), `after ${n + 1} changes`);
      assert.deepEqual(maps.peers, new Map(image.peers));
      assert.deepEqual(maps.prefixes, new Map(image.prefixes));
      assert.deepEqual(maps.endpoints, new Map(image.endpoints));
      const entries = [...image.ruleSets.values()].reduce((sum, set) => sum + set.entries.length, 0);
      assert.deepEqual([maps.heads.size, maps.entries.size], [image.ruleSets.size, entries]);
    }
  }
});
