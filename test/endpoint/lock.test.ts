import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Gate, KeyedLock } from '../../src/endpoint/lock.ts';

test('jobs of one key never overlap and keep their order, those of others run on; a failed one stops nobody', () =>
  fc.assert(
    fc.asyncProperty(fc.scheduler(), fc.array(fc.tuple(fc.nat({ max: 2 }), fc.boolean())), async (scheduler, jobs) => {
      const lock = new KeyedLock();
      const running = new Set<number>();
      const order = new Map<number, number[]>();
      const results = jobs.map(([key, fails], n) =>
        lock.run(`${key}`, async () => {
          assert.ok(!running.has(key), 'two of one key at once');
          running.add(key);
          order.set(key, [...(order.get(key) ?? []), n]);
          await scheduler.schedule(Promise.resolve());
          running.delete(key);
          if (fails) throw new Error('told to fail');
          return n;
        }),
      );
      const [outcomes] = await Promise.all([Promise.allSettled(results), scheduler.waitIdle()]);
      for (const [n, outcome] of outcomes.entries())
        assert.equal(outcome.status, jobs[n]?.[1] ? 'rejected' : 'fulfilled');
      for (const numbers of order.values())
        assert.deepEqual(
          numbers,
          numbers.toSorted((a, b) => a - b),
        );
    }),
  ));

test('a gate lets so many through at once, and all in the end', async () => {
  const gate = new Gate(3);
  let inside = 0;
  let most = 0;
  await Promise.allSettled(
    Array.from({ length: 50 }, (_, n) =>
      gate.run(async () => {
        most = Math.max(most, ++inside);
        await new Promise((resolve) => setImmediate(resolve));
        inside--;
        if (n % 7 === 0) throw new Error('told to fail');
      }),
    ),
  );
  assert.deepEqual([most, inside], [3, 0]);
});
