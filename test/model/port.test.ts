import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  everyPort,
  hasPorts,
  type PortPrefix,
  portPrefixes,
  protocolFromNumber,
  protocolNumbers,
} from '../../src/model/port.ts';

const port = fc.oneof(fc.nat(65535), fc.constantFrom(0, 1, 2, 1023, 1024, 32767, 32768, 65534, 65535));
const ranges = fc.tuple(port, port).map(([a, b]) => ({ from: Math.min(a, b), to: Math.max(a, b) }));
const lastOf = ({ port: first, length }: PortPrefix) => first + 2 ** (16 - length) - 1;

test('the blocks of a range are aligned, follow each other without a gap, and are the range', () => {
  fc.assert(
    fc.property(ranges, (range) => {
      const blocks = portPrefixes(range);
      let next = range.from;
      for (const block of blocks) {
        assert.equal(block.port, next);
        assert.equal(block.port % 2 ** (16 - block.length), 0);
        next = lastOf(block) + 1;
      }
      assert.equal(next, range.to + 1);
      assert.ok(blocks.length <= 30);
    }),
    { numRuns: 2000 },
  );
});

test('no two blocks would fit into one', () => {
  fc.assert(
    fc.property(ranges, (range) => {
      const blocks = portPrefixes(range);
      for (const [i, block] of blocks.entries()) {
        const after = blocks[i + 1];
        const siblings = after?.length === block.length && block.port % 2 ** (17 - block.length) === 0;
        assert.equal(siblings, false, JSON.stringify([block, after]));
      }
    }),
    { numRuns: 2000 },
  );
});

test('the edges', () => {
  assert.deepEqual(portPrefixes(everyPort), [{ port: 0, length: 0 }]);
  assert.deepEqual(portPrefixes({ from: 80, to: 80 }), [{ port: 80, length: 16 }]);
  assert.deepEqual(portPrefixes({ from: 65535, to: 65535 }), [{ port: 65535, length: 16 }]);
  assert.equal(portPrefixes({ from: 1, to: 65534 }).length, 30);
  assert.deepEqual(portPrefixes({ from: 2, to: 1 }), []);
});

test('protocols by number', () => {
  for (const [name, number] of Object.entries(protocolNumbers)) assert.equal(protocolFromNumber(number), name);
  for (const number of [0, 2, 47, 255]) assert.equal(protocolFromNumber(number), undefined);
  assert.deepEqual((['TCP', 'UDP', 'SCTP', 'ICMP', 'ICMPv6'] as const).map(hasPorts), [true, true, true, false, false]);
});
