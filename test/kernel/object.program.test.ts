import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { after, test } from 'node:test';
import { BpfMap } from '../../src/kernel/bpf/map.ts';
import { BpfObject } from '../../src/kernel/bpf/object.ts';
import { ensurePinDirectory, removePinDirectory } from '../../src/kernel/bpffs.ts';
import { KernelError } from '../../src/kernel/error.ts';
import { compileBpf } from './compile.ts';

const pins = `/sys/fs/bpf/myelin-test-${process.pid}`;
after(() => removePinDirectory(pins));

/** An object with one map whose value has two members in this order. */
function objectWith(first: string, second: string): BpfObject {
  return BpfObject.open(
    compileBpf(`
struct pair { __u32 ${first}; __u32 ${second}; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32); __type(value, struct pair); } shared SEC(".maps");
SEC("tc") int mark(struct __sk_buff *skb)
{
	__u32 key = skb->ifindex;
	struct pair value = { .${first} = skb->mark, .${second} = skb->len };
	bpf_map_update_elem(&shared, &key, &value, 0);
	skb->mark = 0x4d000001;
	skb->cb[1] = 7;
	return skb->mark == 0 ? 2 : 1;
}
`),
  );
}
const object = objectWith('a', 'b');

test('a program runs on a packet: return value, context, data, maps, time', () => {
  using loaded = object.load();
  const result = loaded.program('mark').testRun({ data: new Uint8Array(60).fill(3), ctx: { mark: 99 }, repeat: 50 });
  assert.equal(result.retval, 1);
  assert.equal(result.ctxOut.mark, 0x4d000001);
  assert.equal(result.ctxOut.cb[1], 7);
  assert.deepEqual(result.dataOut, new Uint8Array(60).fill(3));
  assert.ok(result.durationNs > 0);
  const [[, value = new Uint8Array()] = []] = [...loaded.map('shared').entries()];
  assert.equal(new DataView(value.buffer, value.byteOffset).getUint32(4, true), 60);
  assert.ok(loaded.program('mark').info.verifiedInstructions > 5);
  assert.equal(loaded.program('mark').info.name, 'mark');
});

test('a run that the kernel refuses names the program', () => {
  using loaded = object.load();
  assert.throws(
    () => loaded.program('mark').testRun({ data: new Uint8Array(4) }),
    (error) => error instanceof KernelError && error.errno === 'EINVAL' && error.data.object === 'program mark',
  );
});

test('what is asked for and not there is named', () => {
  using loaded = object.load();
  assert.throws(() => loaded.map('nothing'), /has no map nothing/);
  assert.throws(() => loaded.program('nothing'), /has no program nothing/);
});

const forgetful = BpfObject.open(
  compileBpf(`
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, __u32); __type(value, __u64); } m SEC(".maps");
SEC("tc") int forgets_null(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 *value = bpf_map_lookup_elem(&m, &key);
	return (int)*value;
}
`),
);

test('the verifier’s reason is in the message, all it said in the data', () => {
  assert.throws(
    () => forgetful.load(),
    (error) => {
      assert.ok(error instanceof KernelError);
      assert.equal(error.code, 'Verifier');
      assert.match(error.message, /program forgets_null .*invalid mem access 'map_value_or_null'/);
      assert.doesNotMatch(error.message, /processed \d+ insns/);
      assert.match(String(error.data.log), /processed \d+ insns/);
      assert.equal(error.errno, 'EACCES');
      return true;
    },
  );
});

test('maps are shared with a later process by their pins, and without pins by hand', () => {
  ensurePinDirectory(pins);
  const first = object.load({ pinDir: pins });
  const { id } = first.map('shared').info;
  first.map('shared').update(Uint8Array.of(1, 0, 0, 0), new Uint8Array(8).fill(5));
  first.close();
  assert.deepEqual(readdirSync(pins), ['shared']);
  using second = object.load({ pinDir: pins });
  assert.equal(second.map('shared').info.id, id);
  assert.deepEqual(second.map('shared').lookup(Uint8Array.of(1, 0, 0, 0)), new Uint8Array(8).fill(5));
  using third = object.load({ maps: second.maps });
  assert.equal(third.map('shared').info.id, id);
  const pinned = BpfMap.openPinned(`${pins}/shared`);
  assert.equal(pinned.info.id, id);
  pinned.close();
  // The object's own pinning attribute, which would pin at a place of libbpf's choice, is not obeyed.
  using alone = object.load();
  assert.notEqual(alone.map('shared').info.id, id);
});

test('a pin of another layout or size is refused with the difference', () => {
  ensurePinDirectory(pins);
  object.load({ pinDir: pins }).close();
  const refuses = (work: () => unknown, difference: RegExp) =>
    assert.throws(work, (error) => {
      assert.ok(error instanceof KernelError, String(error));
      assert.equal(error.code, 'IncompatiblePin');
      assert.equal(error.data.map, 'shared');
      assert.match(String(error.data.difference), difference);
      return true;
    });
  refuses(() => objectWith('b', 'a').load({ pinDir: pins }), /value \{a@0:u32,b@4:u32\}, not \{b@0:u32,a@4:u32\}/);
  refuses(() => object.load({ pinDir: pins, maxEntries: { shared: 9 } }), /maxEntries 8, not 9/);
});

test('a map that grows is taken over by its pin with the capacity that it has', () => {
  ensurePinDirectory(pins);
  object.load({ pinDir: pins }).close();
  using loaded = object.load({ pinDir: pins, maxEntries: { shared: 3 }, growing: new Set(['shared']) });
  assert.equal(loaded.map('shared').info.maxEntries, 8);
  const other = objectWith('b', 'a');
  assert.throws(
    () => other.load({ pinDir: pins, growing: new Set(['shared']) }),
    (error) => error instanceof KernelError && error.code === 'IncompatiblePin',
  );
});

test('loaded on another thread it is the same, also where the verifier refuses it', async () => {
  using first = object.load();
  using second = await object.loadBeside({ maps: first.maps });
  assert.equal(second.map('shared').info.id, first.map('shared').info.id);
  const { retval } = second.program('mark').testRun({ data: new Uint8Array(60) });
  assert.equal(retval, 1);
  await assert.rejects(
    forgetful.loadBeside(),
    (error) => error instanceof KernelError && error.code === 'Verifier' && /map_value_or_null/.test(error.message),
  );
});

test('a second handle of a map outlives the object that made the first', () => {
  const loaded = object.load();
  const map = loaded.map('shared').another();
  loaded.close();
  map.update(Uint8Array.of(1, 0, 0, 0), new Uint8Array(8).fill(5));
  assert.deepEqual(map.lookup(Uint8Array.of(1, 0, 0, 0)), new Uint8Array(8).fill(5));
  assert.ok(map.memory > 0);
  map.close();
});

test('a capacity can be given in place of the object’s', () => {
  using loaded = object.load({ maxEntries: { shared: 3 } });
  assert.equal(loaded.map('shared').info.maxEntries, 3);
});

test('a directory that is not on a BPF file system is refused', () => {
  assert.throws(
    () => ensurePinDirectory('/tmp/myelin-no-bpffs'),
    (error) => error instanceof KernelError && /outside a BPF file system/.test(error.message),
  );
});
