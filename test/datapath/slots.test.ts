import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { arrangeSlots } from '../../src/datapath/slots.ts';

const backend = fc.nat(12).map((n) => ({ address: `10.0.0.${n}`, port: 80 }));
const backends = fc.uniqueArray(backend, { maxLength: 10, selector: ({ address }) => address });

test('all that are wanted are there once, and who stays moves only where its slot ends', () => {
  fc.assert(
    fc.property(backends, backends, (old, wanted) => {
      const arranged = arrangeSlots(old, wanted);
      const names = (list: typeof wanted) => list.map(({ address }) => address).sort();
      assert.deepEqual(names(arranged), names(wanted));
      for (const [slot, { address }] of old.entries())
        if (slot < wanted.length && wanted.some((other) => other.address === address))
          assert.equal(arranged[slot]?.address, address, 'it keeps its slot');
    }),
  );
});

test('twice the same backend is one', () => {
  const twice = { address: '10.0.0.1', port: 80 };
  assert.deepEqual(arrangeSlots([], [twice, { ...twice }]), [twice]);
});
