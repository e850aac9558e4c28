import { randomBytes } from 'node:crypto';
import { TunnelError } from './driver.ts';
import type { SpiPool } from './sa-ledger.ts';

/** RFC 4303 section 2.1 reserves 1 … 255; 0 never goes over the wire. */
const lowest = 256;

/** Random SPIs, none of them twice at a time: an SPI says nothing about when or for whom it was made. */
export class RandomSpis implements SpiPool {
  readonly #used = new Set<number>();
  /** Drawn many at a time: one call costs as much for four bytes as for a thousand. */
  #drawn = Buffer.alloc(0);
  #at = 0;
  readonly #shape: (random: number) => number;

  /** @param shape Makes an SPI that the driver can receive of a random number of 32 bits. */
  constructor(shape: (random: number) => number = (random) => random) {
    this.#shape = shape;
  }

  /** @throws {TunnelError} `DriverFull` when no free one can be found, which four billion make unlikely. */
  reserve(): number {
    for (let attempt = 0; attempt < 100; attempt++) {
      const spi = this.#shape(this.#draw());
      if (spi < lowest || this.#used.has(spi)) continue;
      this.#used.add(spi);
      return spi;
    }
    throw new TunnelError('DriverFull', 'no SPI is free');
  }

  #draw(): number {
    if (this.#at >= this.#drawn.length) {
      this.#drawn = randomBytes(1024);
      this.#at = 0;
    }
    const spi = this.#drawn.readUInt32BE(this.#at);
    this.#at += 4;
    return spi;
  }

  /** Marks one that an earlier agent of this node chose. */
  adopt(spi: number): void {
    this.#used.add(spi);
  }

  release(spi: number): void {
    this.#used.delete(spi);
  }
}
