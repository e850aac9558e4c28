import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type BpfMap, possibleCpus, updateFlags } from '../../src/kernel/bpf/map.ts';
import { BpfObject } from '../../src/kernel/bpf/object.ts';
import { KernelError } from '../../src/kernel/error.ts';
import { compileBpf } from './compile.ts';

const loaded = BpfObject.open(
  compileBpf(`
#define MAP(name, kind, entries, extra) \\
	struct { __uint(type, BPF_MAP_TYPE_##kind); __uint(max_entries, entries); extra \\
		__type(key, __u32); __type(value, __u64); } name SEC(".maps")
MAP(hash, HASH, 1000,);
MAP(lean, HASH, 1000, __uint(map_flags, BPF_F_NO_PREALLOC););
MAP(lru, LRU_HASH, 1000,);
MAP(array, ARRAY, 1000,);
MAP(percpu, PERCPU_ARRAY, 4,);
struct prefix { __u32 length; __u32 address; };
struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __uint(max_entries, 1000); __uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix); __type(value, __u64); } trie SEC(".maps");
SEC("tc") int count(struct __sk_buff *skb)
{
	__u32 key = 1;
	__u64 *value = bpf_map_lookup_elem(&percpu, &key);
	if (value) *value += 1;
	return 0;
}
`),
).load();

const key = (n: number) => new Uint8Array(Uint32Array.of(n).buffer);
const value = (n: number) => new Uint8Array(BigUint64Array.of(BigInt(n)).buffer);
const read = (bytes: Uint8Array | undefined) =>
  bytes === undefined ? undefined : Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));

function refusesWith(errno: string, map: string, work: () => unknown): void {
  assert.throws(
    work,
    (error) => error instanceof KernelError && error.errno === errno && error.data.object === `map ${map}`,
  );
}

for (const name of ['hash', 'lean', 'lru']) {
  test(`${name}: entries are written, read, replaced, deleted`, () => {
    const map = loaded.map(name);
    assert.equal(map.lookup(key(1)), undefined);
    map.update(key(1), value(5));
    map.update(key(1), value(6));
    assert.equal(read(map.lookup(key(1))), 6);
    refusesWith('EEXIST', name, () => map.update(key(1), value(7), updateFlags.noExist));
    refusesWith('ENOENT', name, () => map.update(key(2), value(7), updateFlags.exist));
    assert.equal(map.delete(key(1)), true);
    assert.equal(map.delete(key(1)), false);
    map.update(key(3), value(9));
    assert.equal(read(map.take(key(3))), 9);
    assert.equal(map.take(key(3)), undefined);
  });
}

test('all entries are read, however many there are', () => {
  for (const name of ['hash', 'lean', 'array', 'lru']) {
    const map = loaded.map(name);
    const count = name === 'lru' ? 500 : 1000;
    const written = Array.from({ length: count }, (_, i): [Uint8Array, Uint8Array] => [key(i), value(i * 3)]);
    assert.deepEqual(map.updateMany(written), { done: count });
    const found = new Map(
      [...map.entries()].map(([k, v]) => [new DataView(k.buffer, k.byteOffset).getUint32(0, true), read(v)]),
    );
    assert.equal(found.size, name === 'array' ? 1000 : count, name);
    for (let i = 0; i < count; i++) assert.equal(found.get(i), i * 3, `${name} ${i}`);
  }
});

test('a trie finds the longest prefix and gives all of its entries', () => {
  const trie = loaded.map('trie');
  const prefix = (length: number, ...address: number[]) => Uint8Array.of(length, 0, 0, 0, ...address);
  trie.update(prefix(8, 10, 0, 0, 0), value(8));
  trie.update(prefix(24, 10, 1, 2, 0), value(24));
  assert.equal(read(trie.lookup(prefix(32, 10, 1, 2, 3))), 24);
  assert.equal(read(trie.lookup(prefix(32, 10, 9, 9, 9))), 8);
  assert.equal(trie.lookup(prefix(32, 11, 0, 0, 0)), undefined);
  assert.deepEqual([...trie.entries()].map(([, v]) => read(v)).sort(), [24, 8]);
});

test('a map is copied batch by batch into another of its layout', () => {
  using other = BpfObject.open(loaded.spec.path).load({ maxEntries: { lean: 4000 } });
  const [from, to] = [loaded.map('lean'), other.map('lean')];
  from.updateMany(Array.from({ length: 900 }, (_, i) => [key(i), value(i)]));
  for (const batch of from.batches()) to.writeBatch(batch);
  const all = (map: BpfMap) =>
    [...map.entries()].map(([k, v]) => `${read(new Uint8Array([...k, 0, 0, 0, 0]))} ${read(v)}`).sort();
  assert.deepEqual(all(to), all(from));
  assert.ok(all(to).length >= 900);
});

test('a full map refuses a new key, takes an old one, and says how many of a batch it took', () => {
  for (const [name, errno] of [
    ['hash', 'E2BIG'],
    ['lean', 'E2BIG'],
  ] as const) {
    const map = loaded.map(name);
    for (const [k] of [...map.entries()]) map.delete(k);
    const { done, error } = map.updateMany(Array.from({ length: 1200 }, (_, i) => [key(i), value(i)]));
    assert.equal(error?.errno, errno);
    assert.equal(done, [...map.entries()].length, `${name}: all that was written is counted`);
    assert.ok(done >= 1000 && done < 1100, `${name} took ${done}`);
    map.update(key(0), value(42));
    assert.equal(read(map.lookup(key(0))), 42);
  }
});

test('each CPU has its own value', () => {
  const program = loaded.program('count');
  program.testRun({ data: new Uint8Array(14), repeat: 10 });
  const values = loaded.map('percpu').lookupPerCpu(key(1)) ?? [];
  assert.equal(values.length, possibleCpus());
  assert.equal(
    values.reduce((sum, bytes) => sum + (read(bytes) ?? 0), 0),
    10,
  );
});

test('keys and values of the wrong size never reach the kernel', () => {
  const map: BpfMap = loaded.map('hash');
  assert.throws(() => map.lookup(new Uint8Array(3)), /a key has 4 bytes, not 3/);
  assert.throws(() => map.update(key(1), new Uint8Array(4)), /a value has 8 bytes, not 4/);
  assert.throws(() => map.updateMany([[key(1), new Uint8Array(9)]]), RangeError);
});

test('a closed map refuses to be used', () => {
  const other = BpfObject.open(loaded.spec.path).load();
  const map = other.map('hash');
  other.close();
  other.close();
  refusesWith('EBADF', 'hash', () => map.lookup(key(1)));
});
