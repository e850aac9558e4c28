import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { capacityFor, fullShare, growing, mostEntries } from '../../src/datapath/growth/capacity.ts';
import { Ranges } from '../../src/datapath/ranges.ts';
import { mapTypes } from '../../src/kernel/bpf/map.ts';

const size = fc.integer({ min: 1, max: 1 << 24 });

test('a map stays as it is while it has head-room, and doubles until it has', () => {
  assert.equal(capacityFor(80, 100, 1000), 100);
  assert.equal(capacityFor(81, 100, 1000), 200);
  assert.equal(capacityFor(700, 100, 1000), 1000);
  assert.equal(capacityFor(1000, 100, 1000), 1000);
  assert.equal(capacityFor(1001, 100, 1000), undefined);
  assert.equal(capacityFor(1500, 2000, 1000), 2000, 'one that is larger than allowed keeps what it has');
});

test('what is given is never less than what there was or is needed, and no more than allowed', () => {
  fc.assert(
    fc.property(size, size, size, (needed, capacity, most) => {
      const next = capacityFor(needed, capacity, most);
      if (next === undefined) assert.ok(needed > most && needed > capacity);
      else {
        assert.ok(next >= needed && next >= capacity && next <= Math.max(most, capacity));
        assert.ok(needed <= fullShare * next || next >= most);
      }
    }),
  );
});

test('the most that a map may have is bounded by the memory that there is', () => {
  const policy = { type: mapTypes.hash, keySize: 12, valueSize: 16 };
  const [gibibyte, share] = [2 ** 30, 1 / 16];
  assert.equal(mostEntries('policy', policy, 64 * gibibyte), growing.policy);
  const small = mostEntries('policy', policy, gibibyte);
  assert.ok(small < growing.policy && small * 100 <= gibibyte * share, `${small}`);
  const rows = { type: mapTypes.array, keySize: 4, valueSize: 204 };
  assert.ok(mostEntries('http_rows', rows, gibibyte) * 208 <= gibibyte * share);
});

test('how far ranges would reach is where they are put when there is room', () => {
  const lengths = fc.array(fc.integer({ min: 0, max: 20 }), { maxLength: 30 });
  fc.assert(
    fc.property(lengths, fc.array(fc.nat(29)), lengths, (taken, freed, wanted) => {
      let end = 1000;
      const ranges = new Ranges(1, () => end);
      const starts = taken.map((length) => ranges.take(length));
      for (const i of freed) if ((taken[i] ?? 0) > 0) ranges.free(starts[i] ?? 0);
      const reach = ranges.reach(wanted);
      end = reach;
      for (const length of wanted) assert.notEqual(ranges.take(length), undefined, `${length} below ${reach}`);
    }),
  );
});
