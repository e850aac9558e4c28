import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { changed } from '../../src/policy/compile/overlay.ts';

const value = (n: number) => ({ n });

test('a map with changes, of any size and many times over, is what a copy with them would be', () => {
  const steps = fc.array(
    fc.array(fc.tuple(fc.nat(6000), fc.option(fc.nat(9), { nil: undefined })), { minLength: 1, maxLength: 200 }),
    { maxLength: 6 },
  );
  fc.assert(
    fc.property(fc.constantFrom(10, 5000), steps, (size, all) => {
      const copy = new Map(Array.from({ length: size }, (_, i) => [i, value(i)] as const));
      let map: ReadonlyMap<number, { n: number }> = new Map(copy);
      for (const step of all) {
        const changes = new Map(step.map(([key, n]) => [key, n === undefined ? undefined : value(n)] as const));
        const before = map;
        const was = before.size;
        map = changed(map, changes);
        for (const [key, now] of changes)
          if (now === undefined) copy.delete(key);
          else copy.set(key, now);
        assert.equal(before.size, was, 'what it was made from is as it was');
      }
      assert.equal(map.size, copy.size);
      assert.deepEqual(new Map(map), copy);
      assert.deepEqual(new Set(map.keys()), new Set(copy.keys()));
      assert.deepEqual([...map.values()].length, copy.size);
      for (let key = 0; key < 6001; key++) {
        assert.equal(map.has(key), copy.has(key));
        assert.equal(map.get(key), copy.get(key));
      }
    }),
    { numRuns: 60 },
  );
});
