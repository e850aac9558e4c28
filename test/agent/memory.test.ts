import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { collectWhenIdle } from '../../src/agent/memory.ts';

test('garbage is collected once there is much of it and nothing else to do, and not before', async () => {
  let collections = 0;
  const burst: number[][] = [];
  const stop = collectWhenIdle(async () => void collections++);
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

test('a heap that is a large cluster’s may grow more between collections, which is said to V8 once', async () => {
  const said: string[] = [];
  const cluster: number[][] = [];
  const stop = collectWhenIdle(
    async () => undefined,
    (flag) => void said.push(flag),
  );
  try {
    for (let i = 0; i < 1400; i++) cluster.push(Array.from({ length: 10_000 }, (_, n) => n + 0.5));
    for (let i = 0; i < 600 && said.length === 0; i++) await sleep(50);
    await sleep(2500);
    assert.deepEqual(said, ['--heap-growing-percent=50']);
    assert.equal(cluster.length, 1400);
  } finally {
    stop();
  }
});
