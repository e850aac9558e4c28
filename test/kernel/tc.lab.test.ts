import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { once } from 'node:events';
import { before, test } from 'node:test';
import { BpfObject } from '../../src/kernel/bpf/object.ts';
import { attachTc, detachTc, queryTc, removeClsact } from '../../src/kernel/bpf/tc.ts';
import { KernelError } from '../../src/kernel/error.ts';
import { deviceIndex } from '../../src/kernel/ffi/libc.ts';
import { findLink, ip, ipBatch } from '../../src/kernel/ip.ts';
import { nft, nftList } from '../../src/kernel/nft.ts';
import { runInOwnNamespace } from '../support/namespace.ts';
import { compileBpf } from './compile.ts';

runInOwnNamespace();

const loaded = BpfObject.open(
  compileBpf(`
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 2); __type(key, __u32); __type(value, __u64); } seen SEC(".maps");
static int note(__u32 key) { __u64 *count = bpf_map_lookup_elem(&seen, &key); if (count) *count += 1; return 0; }
SEC("tc") int first(struct __sk_buff *skb) { return note(0); }
SEC("tc") int second(struct __sk_buff *skb) { return note(1); }
`),
).load();

const count = (key: number) => {
  const value = loaded.map('seen').lookup(Uint8Array.of(key, 0, 0, 0)) ?? new Uint8Array(8);
  return Number(new DataView(value.buffer).getBigUint64(0, true));
};

async function packet(): Promise<void> {
  const socket = dgram.createSocket('udp4');
  await once(socket.bind(9999, '127.0.0.1'), 'listening');
  socket.send('x', 9999, '127.0.0.1');
  await once(socket, 'message');
  socket.close();
}

before(() => ipBatch(['link set lo up', 'link add left type veth peer name right', 'link set left up']));

test('a program sees packets where it is attached, and is replaced in place', async () => {
  const lo = deviceIndex('lo');
  assert.equal(queryTc(lo, 'ingress'), undefined);
  attachTc(loaded.program('first'), lo, 'ingress');
  assert.equal(queryTc(lo, 'ingress'), loaded.program('first').info.id);
  assert.equal(queryTc(lo, 'egress'), undefined);
  const before = count(0);
  await packet();
  assert.ok(count(0) > before);
  attachTc(loaded.program('second'), lo, 'ingress');
  assert.equal(queryTc(lo, 'ingress'), loaded.program('second').info.id);
  const replaced = count(0);
  await packet();
  assert.equal(count(0), replaced);
  assert.ok(count(1) > 0);
  assert.equal(detachTc(lo, 'ingress'), true);
  assert.equal(detachTc(lo, 'ingress'), false);
  assert.equal(removeClsact(lo), true);
  assert.equal(removeClsact(lo), false);
});

test('a device that is not there is named, or known to have nothing', () => {
  assert.throws(
    () => attachTc(loaded.program('first'), 4242, 'egress'),
    (error) => error instanceof KernelError && error.errno === 'ENODEV' && error.data.ifindex === 4242,
  );
  assert.equal(queryTc(4242, 'egress'), undefined);
  assert.equal(detachTc(4242, 'egress'), false);
  assert.throws(() => deviceIndex('nowhere'), { message: /cannot find the device: nowhere/ });
});

test('links are listed; what ip refuses is told with its line and errno', async () => {
  const left = await findLink('left');
  assert.equal(left?.ifindex, deviceIndex('left'));
  assert.equal(left.up, true);
  assert.equal(await findLink('nowhere'), undefined);
  await assert.rejects(ipBatch(['link set right up', 'link add left type dummy']), (error) => {
    assert.ok(error instanceof KernelError);
    assert.equal(error.errno, 'EEXIST');
    assert.equal(error.data.line, 'link add left type dummy');
    return true;
  });
  assert.equal((await findLink('right'))?.up, true, 'the lines before it are done');
  await assert.rejects(ip(['link', 'show', 'dev', 'nowhere']), { errno: 'ENODEV' });
  await ipBatch([]);
});

test('an nftables script is loaded as a whole, or not at all', async () => {
  await nft('table inet one {\nchain c { }\n}');
  assert.ok((await nftList(['table', 'inet', 'one']))?.some((item) => JSON.stringify(item).includes('"c"')));
  await assert.rejects(nft('table inet two {\nchain c { }\n}\nadd rule inet two nochain accept'), { code: 'Command' });
  assert.equal(await nftList(['table', 'inet', 'two']), undefined);
});
