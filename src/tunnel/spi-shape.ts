/**
 * What an SPI says of who receives it; bpf/steer.bpf.c and native/steer.h read it. The two highest bits are how many of the lowest
 * name the engine's thread; with none of these the next bit is set where the association is the kernel's. The rest is random.
 */

const kernelBit = 2 ** 29;

/**
 * @param threads Of the engine that opens it, in each direction: 1, 2, 4 or 8.
 * @param random 32 bits.
 */
export function engineSpi(random: number, threads: number): number {
  const bits = Math.log2(threads);
  return bits === 0 ? random % kernelBit : bits * 2 ** 30 + (random % 2 ** 30);
}

export function isKernelSpi(spi: number): boolean {
  return Math.floor(spi / kernelBit) === 1;
}

/** An SPI that the kernel's ESP opens. */
export function kernelSpi(random: number): number {
  return kernelBit + (random % kernelBit);
}
