import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { changed, differences } from '../../src/model/versions.ts';

const value = (n: number) => ({ n });
type Values = ReadonlyMap<string | number, { n: number }>;

test('a map with changes, of any size and many times over, is what a copy with them would be', () => {
  const steps = fc.array(
    fc.array(fc.tuple(fc.nat(6000), fc.option(fc.nat(9), { nil: undefined })), { minLength: 1, maxLength: 200 }),
    { maxLength: 6 },
  );
  fc.assert(
    fc.property(fc.constantFrom(10, 1000, 5000), fc.boolean(), steps, (size, named, all) => {
      const keyOf = (n: number): string | number => (named ? `pod-${n}` : n);
      const copy = new Map(Array.from({ length: size }, (_, i) => [keyOf(i), value(i)] as const));
      let map: Values = new Map(copy);
      const versions: Values[] = [map];
      const copies = [new Map(copy)];
      for (const step of all) {
        const changes = step.map(([n, now]) => [keyOf(n), now === undefined ? undefined : value(now)] as const);
        map = changed(map, new Map(changes));
        for (const [key, now] of new Map(changes))
          if (now === undefined) copy.delete(key);
          else copy.set(key, now);
        versions.push(map);
        copies.push(new Map(copy));
      }
      for (const [i, version] of versions.entries()) {
        const expected = copies[i] ?? new Map();
        assert.equal(version.size, expected.size, 'those that others were made from too');
        assert.deepEqual(new Map(version), expected);
        assert.deepEqual(new Set(version.keys()), new Set(expected.keys()));
        assert.equal([...version.values()].length, expected.size);
        const expectedDifferences = [...new Set([...expected.keys(), ...copy.keys()])].filter(
          (key) => expected.get(key) !== copy.get(key),
        );
        const found = new Set(differences(version, map));
        for (const key of expectedDifferences) assert(found.has(key), `${key} differs`);
      }
      for (let n = 0; n < 6001; n++) {
        assert.equal(map.has(keyOf(n)), copy.has(keyOf(n)));
        assert.equal(map.get(keyOf(n)), copy.get(keyOf(n)));
      }
    }),
    { numRuns: 40 },
  );
});

test('a change to a large map touches little: no keys but those can differ', () => {
  const size = 50_000;
  let map: ReadonlyMap<string, { n: number }> = changed(
    new Map(Array.from({ length: size }, (_, i) => [`pod-${i}`, value(i)] as const)),
    new Map([['pod-0', undefined]]),
  );
  const first = map;
  assert.deepEqual([...differences(map, first)], []);
  for (let i = 1; i <= 20; i++) {
    const next = changed(map, new Map([[`pod-${i * 100}`, value(-i)]]));
    assert.deepEqual([...differences(map, next)], [`pod-${i * 100}`]);
    map = next;
  }
  assert.equal([...differences(first, map)].length, 20);
  assert.equal(changed(map, new Map()), map, 'nothing to change: the very map');
});
