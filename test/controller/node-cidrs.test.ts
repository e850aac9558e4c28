import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { assignCidrs, clusterCidr, type NodeCidrs } from '../../src/controller/node-cidrs.ts';
import { parsePrefix, prefixWithin } from '../../src/model/prefix.ts';

const cluster = ['10.244.0.0/16', 'fd00:10:244::/56'].map(parsePrefix).map(clusterCidr);
const node = (name: string, ...podCidrs: string[]): NodeCidrs => ({
  name,
  podCidrs: podCidrs.map(parsePrefix),
  resourceVersion: '1',
});
const given = (...nodes: NodeCidrs[]) =>
  [...assignCidrs(cluster, nodes)].map(([{ name }, prefixes]) => `${name} ${prefixes.join(' ')}`);

test('nodes get the first free place, the same in both families', () => {
  assert.deepEqual(given(node('a'), node('b')), [
    'a 10.244.0.0/24 fd00:10:244::/64',
    'b 10.244.1.0/24 fd00:10:244:1::/64',
  ]);
  assert.deepEqual(given(node('a', '10.244.0.0/24', 'fd00:10:244::/64'), node('b')), [
    'b 10.244.1.0/24 fd00:10:244:1::/64',
  ]);
  // Somebody gave out other sizes, or one family only: no overlap with any of it.
  assert.deepEqual(given(node('a', '10.244.0.0/22'), node('b', 'fd00:10:244:4::/64'), node('c')), [
    'c 10.244.5.0/24 fd00:10:244:5::/64',
  ]);
  assert.deepEqual(given(node('a', '10.244.7.0/24')), []);
});

test('no two nodes ever overlap, every prefix is the cluster’s, and whoever is served first stays served', () => {
  const existing = fc
    .array(fc.nat(255), { maxLength: 40 })
    .map((list) => list.map((n, i) => node(`old${i}`, `10.244.${n}.0/24`, `fd00:10:244:${n.toString(16)}::/64`)));
  fc.assert(
    fc.property(existing, fc.nat(300), (old, count) => {
      const nodes = [...old, ...Array.from({ length: count }, (_, i) => node(`new${i}`))];
      const assigned = assignCidrs(cluster, nodes);
      // All of one size here, so that overlapping is being equal.
      const used = new Set(old.flatMap(({ podCidrs }) => podCidrs));
      for (const prefixes of assigned.values()) {
        assert.equal(prefixes.length, 2);
        for (const [i, prefix] of prefixes.entries()) {
          assert.ok(prefixWithin(prefix, cluster[i]?.prefix ?? prefix));
          assert.ok(!used.has(prefix), prefix);
          used.add(prefix);
        }
      }
      assert.equal(assigned.size, Math.min(count, 256 - new Set(old.map(({ podCidrs }) => podCidrs[0])).size));
    }),
    { numRuns: 50 },
  );
});

test('a cluster prefix without room for one node is refused', () => {
  assert.throws(() => clusterCidr(parsePrefix('10.0.0.0/25')), { code: 'InvalidPrefix' });
  assert.throws(() => clusterCidr(parsePrefix('fd00::/65')), { code: 'InvalidPrefix' });
  assert.equal(assignCidrs([clusterCidr(parsePrefix('10.0.0.0/24'))], [node('a'), node('b')]).size, 1);
  assert.equal(assignCidrs([clusterCidr(parsePrefix('fd00::/8'))], [node('a')]).size, 1);
});
