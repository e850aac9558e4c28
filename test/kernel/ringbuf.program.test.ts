import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { BpfObject } from '../../src/kernel/bpf/object.ts';
import { RingBuffer } from '../../src/kernel/bpf/ringbuf.ts';
import { compileBpf } from './compile.ts';

const object = BpfObject.open(
  compileBpf(`
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
/* A record of as many bytes as the packet has; every seventh is reserved and discarded. */
SEC("tc") int emit(struct __sk_buff *skb)
{
	__u32 *record;
	if (skb->priority % 7 == 6) {
		record = bpf_ringbuf_reserve(&ring, 100, 0);
		if (record) bpf_ringbuf_discard(record, 0);
		return 0;
	}
	if (skb->len > 100) {
		record = bpf_ringbuf_reserve(&ring, 52, 0);
		if (!record) return 1;
		record[12] = 0;
	} else {
		record = bpf_ringbuf_reserve(&ring, 36, 0);
		if (!record) return 1;
	}
	for (int i = 0; i < 9; i++) record[i] = skb->priority;
	bpf_ringbuf_submit(record, 0);
	return 0;
}
`),
);

function emit(loaded: ReturnType<typeof object.load>, n: number, long = n % 2 === 0): number {
  return loaded.program('emit').testRun({ data: new Uint8Array(long ? 120 : 60), ctx: { priority: n } }).retval;
}

test('records come in order, whole, with their length, also where they wrap around', async () => {
  using loaded = object.load();
  const seen: number[] = [];
  using ring = new RingBuffer(loaded.map('ring'), (record) => {
    const view = new DataView(record.buffer, record.byteOffset, record.length);
    const n = view.getUint32(0, true);
    assert.equal(record.length, n % 2 === 0 ? 52 : 36);
    for (let i = 1; i < 9; i++) assert.equal(view.getUint32(4 * i, true), n);
    seen.push(n);
  });
  const expected: number[] = [];
  for (let n = 0; n < 1000; n++) {
    if (n % 7 !== 6) expected.push(n);
    assert.equal(emit(loaded, n), 0);
    // Sometimes the event loop brings them, sometimes they are fetched.
    if (n % 50 === 0) await sleep(1);
    else if (n % 20 === 0) ring.drain();
  }
  ring.drain();
  assert.deepEqual(seen, expected);
  assert.equal(ring.pending, 0);
});

test('the event loop is woken by a record', async () => {
  using loaded = object.load();
  const record = Promise.withResolvers<number>();
  using _ring = new RingBuffer(loaded.map('ring'), (bytes) => record.resolve(bytes.length));
  emit(loaded, 2);
  assert.equal(await record.promise, 52);
});

test('a full ring refuses; what was not read stays for the next reader', () => {
  using loaded = object.load();
  let written = 0;
  while (emit(loaded, 2) === 0) written++;
  // 52 bytes and a header of 8, rounded up to 64; the ring is never full to the last byte.
  assert.equal(written, Math.floor((4096 - 1) / 64));
  const lengths: number[] = [];
  const first = new RingBuffer(loaded.map('ring'), (record) => lengths.push(record.length));
  assert.equal(first.drain(10), 10);
  first.close();
  assert.equal(first.drain(), 0, 'a closed reader reads nothing');
  using second = new RingBuffer(loaded.map('ring'), (record) => lengths.push(record.length));
  assert.equal(second.drain(), written - 10);
  assert.equal(emit(loaded, 2), 0, 'there is room again');
});

test('a reader that fails, or reads while it reads, gets each record once', () => {
  using loaded = object.load();
  for (const n of [1, 2, 3]) emit(loaded, n);
  const seen: number[] = [];
  using ring = new RingBuffer(loaded.map('ring'), (record) => {
    seen.push(record[0] ?? 0);
    if (record[0] === 1) throw new Error('of the reader’s own');
    assert.equal(ring.drain(), 0);
  });
  assert.throws(() => ring.drain(), /of the reader’s own/);
  assert.equal(ring.drain(), 2);
  assert.deepEqual(seen, [1, 2, 3]);
});

test('a reader may close itself while it reads', () => {
  using loaded = object.load();
  emit(loaded, 1);
  emit(loaded, 2);
  let count = 0;
  const ring = new RingBuffer(loaded.map('ring'), () => {
    count++;
    ring.close();
  });
  ring.drain();
  assert.equal(count, 1);
});
