import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { RandomSpis } from '../../src/tunnel/spi-pool.ts';
import { engineSpi, isKernelSpi, kernelSpi } from '../../src/tunnel/spi-shape.ts';

const random = fc.nat({ max: 0xffff_ffff });
const threads = fc.constantFrom(1, 2, 4, 8);

test('an SPI says whose it is, and of how many threads', () => {
  fc.assert(
    fc.property(random, threads, (number, count) => {
      const spi = engineSpi(number, count);
      assert.ok(Number.isInteger(spi) && spi >= 0 && spi <= 0xffff_ffff);
      assert.equal(2 ** (spi >>> 30), count);
      assert.equal(isKernelSpi(spi), false);
      const kernel = kernelSpi(number);
      assert.ok(isKernelSpi(kernel) && kernel <= 0xffff_ffff);
      assert.equal(kernel >>> 30, 0);
      // Everything else in it is what was drawn.
      assert.equal(spi % 2 ** 29, number % 2 ** 29);
      assert.equal(kernel % 2 ** 29, number % 2 ** 29);
    }),
  );
});

test('a pool gives each once, of the shape that it was told, and none that is reserved', () => {
  const pool = new RandomSpis((number) => engineSpi(number % 512, 1));
  const given = Array.from({ length: 128 }, () => pool.reserve());
  assert.equal(new Set(given).size, given.length);
  for (const spi of given) assert.ok(spi >= 256 && spi < 512, `${spi}`);
});
