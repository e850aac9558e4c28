import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { tendHeap } from '../../src/agent/memory.ts';

test('garbage is collected once there is much of it and nothing else to do, and not before', async () => {
  let collections = 0;
  const burst: number[][] = [];
  const stop = tendHeap(
    async () => void collections++,
    () => 0,
  );
  try {
    await sleep(5000);
    assert.equal(collections, 0, 'there was nothing to collect');
    for (let i = 0; i < 300; i++) burst.push(Array.from({ length: 10_000 }, (_, n) => n + 0.5));
    for (const end = Date.now() + 5000; Date.now() < end; await sleep(1)) {
      // Busy: each turn of the loop takes most of the time until the next.
      for (const turn = Date.now() + 20; Date.now() < turn; );
    }
    assert.equal(collections, 0, 'it had something better to do');
    for (let i = 0; i < 600 && collections === 0; i++) await sleep(50);
    assert.equal(collections, 1);
    assert.equal(burst.length, 300);
  } finally {
    stop();
  }
});

test('a heap may grow more while a crowd is keyed, and for good where it is a large cluster’s', async () => {
  const said: string[] = [];
  const cluster: number[][] = [];
  let keyed = 0;
  const stop = tendHeap(
    async () => undefined,
    () => keyed,
    (flag) => void said.push(flag),
  );
  const heard = async (flag: string) => {
    for (let i = 0; i < 600 && said.at(-1) !== flag; i++) await sleep(50);
    assert.equal(said.at(-1), flag);
  };
  try {
    keyed += 5;
    await sleep(1000);
    assert.deepEqual(said, []);
    keyed += 500;
    await heard('--heap-growing-percent=0');
    await heard('--heap-growing-percent=10');
    for (let i = 0; i < 1400; i++) cluster.push(Array.from({ length: 10_000 }, (_, n) => n + 0.5));
    await heard('--heap-growing-percent=50');
    keyed += 500;
    await sleep(4000);
    assert.equal(said.length, 3);
    assert.equal(cluster.length, 1400);
  } finally {
    stop();
  }
});
