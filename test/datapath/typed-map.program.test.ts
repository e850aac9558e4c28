import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { number32 } from '../../src/datapath/layouts.ts';
import { TypedMap } from '../../src/datapath/typed-map.ts';
import type { BpfMap } from '../../src/kernel/bpf/map.ts';
import { BpfObject } from '../../src/kernel/bpf/object.ts';
import { KernelError } from '../../src/kernel/error.ts';
import { compileBpf } from '../kernel/compile.ts';

/** Maps that a larger one takes the place of. */
const object = BpfObject.open(
  compileBpf(`
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4096); __uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); __type(value, __u32); } table SEC(".maps");
SEC("tc") int look(struct __sk_buff *skb)
{
	__u32 key = 0;
	return bpf_map_lookup_elem(&table, &key) != 0;
}
`),
);
const loaded: { close(): void }[] = [];
after(() => {
  for (const one of loaded) one.close();
});

function mapOf(entries: number): BpfMap {
  const one = object.load({ maxEntries: { table: entries } });
  loaded.push(one);
  return one.map('table');
}
const tableOf = (map: BpfMap) => new TypedMap(map, number32, number32);
const sorted = (map: BpfMap) => [...tableOf(map).entries()].sort(([a], [b]) => a - b);

const write = fc.record({ key: fc.integer({ min: 0, max: 2500 }), value: fc.nat(9), kind: fc.nat(3) });

test('a copy that others write under is the map as it is in the end', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(write, { maxLength: 300 }), async (writes) => {
      const [before, after] = [mapOf(4096), mapOf(8192)];
      const table = tableOf(before);
      table.setMany(Array.from({ length: 2000 }, (_, i) => [i, 100 + i]));
      table.follow(after);
      const copying = table.copy();
      for (const [i, { key, value, kind }] of writes.entries()) {
        if (kind === 0) table.delete(key);
        else if (kind === 1) table.take(key);
        else if (kind === 2) table.setMany([[key, value]]);
        else table.set(key, value);
        if (i % 7 === 0) await new Promise(setImmediate);
      }
      await copying;
      assert.deepEqual(sorted(after), sorted(before));
      assert.equal(table.promote(), before);
      assert.deepEqual([table.raw, table.capacity], [after, 8192]);
      table.set(1, 77);
      assert.notEqual(tableOf(before).get(1), 77);
      for (const one of loaded.splice(0)) one.close();
    }),
    { numRuns: 20 },
  );
});

test('what the map that follows refuses is not written to the other either', () => {
  const [before, after] = [mapOf(64), mapOf(4)];
  const table = tableOf(before);
  table.set(1, 1);
  table.follow(after);
  const refused = (error: unknown) => error instanceof KernelError && error.errno === 'E2BIG';
  const taken: number[] = [];
  assert.throws(() => {
    for (let key = 100; key < 200; key++) {
      table.set(key, key);
      taken.push(key);
    }
  }, refused);
  const keys = sorted(before).map(([key]) => key);
  assert.deepEqual(keys, [1, ...taken]);
  assert.throws(() => table.set(1, 2), refused);
  assert.equal(table.get(1), 1);
  const { done, error } = table.setMany([
    [201, 1],
    [202, 1],
  ]);
  assert.equal(error?.errno, 'E2BIG');
  // As much as the first map has is said to be written: so much is undone.
  assert.equal(done, 2);
  for (const key of [201, 202]) table.delete(key);
  assert.deepEqual(
    sorted(before).map(([key]) => key),
    keys,
  );
});
