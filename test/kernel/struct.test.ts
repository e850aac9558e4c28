import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BpfObject } from '../../src/kernel/bpf/object.ts';
import { addr, be16, mac, pad, pair, someAddr, struct, u8, u16, u32, u64 } from '../../src/kernel/bpf/struct.ts';
import { ipFromBytes, macFromBytes } from '../../src/model/address.ts';
import { compileBpf } from './compile.ts';

const sample = struct('sample', {
  small: u8,
  pad: pad(1),
  port: be16,
  ownAddress: someAddr,
  other: addr,
  mac,
  half: u16,
  counters: pair(u64),
  last: u32,
  pad2: pad(4, 'u32'),
});

const btf = BpfObject.open(
  compileBpf(`
struct addr { __be32 words[4]; };
struct sample {
	__u8 small; __u8 pad; __be16 port; struct addr own_address; struct addr other; __u8 mac[6]; __u16 half;
	__u64 counters[2]; __u32 last; __u32 pad2;
};
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, struct sample); } m SEC(".maps");
`),
).btf;

const ips = fc.oneof(
  fc.uint8Array({ minLength: 4, maxLength: 4 }),
  fc.uint8Array({ minLength: 16, maxLength: 16 }).filter((bytes) => bytes.some((byte) => byte !== 0)),
);

test('what is encoded is decoded, and takes as many bytes as in C', () => {
  assert.deepEqual(sample.differences(btf.struct('sample')), []);
  const values = fc.record(
    {
      small: fc.nat(255),
      port: fc.nat(65535),
      ownAddress: ips.map(ipFromBytes),
      other: fc.option(ips.map(ipFromBytes), { nil: undefined }),
      mac: fc.uint8Array({ minLength: 6, maxLength: 6 }).map(macFromBytes),
      half: fc.nat(65535),
      counters: fc.tuple(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
      last: fc.nat(0xffff_ffff),
    },
    { noNullPrototype: true },
  );
  fc.assert(
    fc.property(values, (value) => {
      const bytes = sample.encode(value);
      assert.equal(bytes.length, btf.struct('sample')?.size);
      assert.deepEqual(sample.decode(bytes), value);
      const { half, last } = value;
      assert.deepEqual(sample.only('last', 'half')(bytes), { half, last });
    }),
  );
});

test('ports stand in network order, addresses in the form of map keys', () => {
  const bytes = sample.encode({
    small: 1,
    port: 0x1234,
    ownAddress: ipFromBytes(Uint8Array.of(10, 0, 0, 1)),
    other: undefined,
    mac: macFromBytes(Uint8Array.of(1, 2, 3, 4, 5, 6)),
    half: 0,
    counters: [0n, 0n],
    last: 0,
  });
  assert.deepEqual([...bytes.subarray(2, 4)], [0x12, 0x34]);
  assert.equal(Buffer.from(bytes.subarray(4, 20)).toString('hex'), '00000000000000000000ffff0a000001');
});

test('every kind of difference from C is named', () => {
  const actual = btf.struct('sample');
  const names = (layout: { differences(b: typeof actual): string[] }) => layout.differences(actual).join('\n');
  assert.match(names(struct('sample', { small: u8 })), /has 72 bytes, not 1/);
  assert.match(names(struct('sample', { small: u16 })), /small@0:u8 where small@0:u16/);
  assert.match(names(struct('sample', { little: u8 })), /small@0:u8 where little@0:u8/);
  assert.deepEqual(struct('absent', { a: u8 }).differences(undefined), ['there is no struct absent']);
});
