import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Btf } from '../../src/kernel/bpf/btf.ts';
import { BpfObject } from '../../src/kernel/bpf/object.ts';
import { KernelError } from '../../src/kernel/error.ts';
import { compileBpf } from './compile.ts';

const object = BpfObject.open(
  compileBpf(`
typedef const volatile __u16 half;
struct inner { __u32 words[4]; };
enum colour { RED = 1, GREEN = 2, LAST = -1 };
struct outer {
	__u8 first;
	half second;
	struct inner address;
	__s64 number;
	__u8 bits : 3, more : 5;
	enum colour colour;
	union { __u32 a; __u8 b[4]; } either;
	void *pointer;
};
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 7); __type(key, struct inner); __type(value, struct outer); } m SEC(".maps");
int counter;
SEC("tc") int run(struct __sk_buff *skb) { counter++; return 0; }
`),
);

test('a struct is described member by member', () => {
  assert.deepEqual(
    object.btf.struct('outer')?.members.map(({ name, offset, size, type }) => `${name}@${offset}+${size} ${type}`),
    [
      'first@0+1 u8',
      'second@2+2 u16',
      'address@4+16 {words@0:u32[4]}',
      'number@24+8 i64',
      'bits@32+1 u8:0/3',
      'more@32+1 u8:3/5',
      'colour@36+4 enum32',
      'either@40+4 {a@0:u32,b@0:u8[4]}',
      'pointer@48+8 pointer',
    ],
  );
  assert.equal(object.btf.struct('outer')?.size, 56);
  assert.equal(object.btf.struct('nothing'), undefined);
});

test('an enumeration is described by its names', () => {
  assert.deepEqual(
    [...(object.btf.enumeration('colour') ?? [])],
    [
      ['RED', 1],
      ['GREEN', 2],
      ['LAST', -1],
    ],
  );
});

test('an object says what it holds without a kernel', () => {
  const map = object.maps.get('m');
  assert.equal(map?.maxEntries, 7);
  assert.equal(map?.internal, false);
  assert.equal(object.btf.structOf(map?.btfValueType ?? 0)?.name, 'outer');
  assert.equal([...object.maps.values()].filter(({ internal }) => internal).length, 1, 'the global variable’s map');
  assert.deepEqual([...object.programs.keys()], ['run']);
  assert.equal(object.programs.get('run')?.section, 'tc');
});

test('what is not an object is refused with its name', () => {
  const refused = (path: string, code: string) =>
    assert.throws(
      () => BpfObject.open(path),
      (error) => error instanceof KernelError && error.code === code && error.message.includes(path),
    );
  refused('/etc/hostname', 'BadObject');
  refused('/nonexistent.o', 'Errno');
});

test('random bytes are no BTF', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        new Btf(bytes).struct('x');
      } catch (error) {
        assert.ok(error instanceof KernelError || error instanceof RangeError, String(error));
      }
    }),
  );
});
