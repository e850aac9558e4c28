/** Alternatives of one matcher, at most. */
export const alternativeLimit = 1024;
/** 32-bit words of a set of alternatives: in memory as the datapath's `struct http_bits`. */
export const bitWords = alternativeLimit / 32;

/** A set of alternatives by their numbers. */
export type Bits = Uint32Array;

export function noBits(): Bits {
  return new Uint32Array(bitWords);
}

/** The numbers from 0 on, so many of them. */
export function firstBits(count: number): Bits {
  return bitsOf(Array.from({ length: count }, (_, number) => number));
}

export function bitsOf(numbers: Iterable<number>): Bits {
  const bits = noBits();
  for (const number of numbers) setBit(bits, number);
  return bits;
}

export function setBit(bits: Bits, number: number): void {
  bits[number >>> 5] = ((bits[number >>> 5] ?? 0) | (1 << (number & 31))) >>> 0;
}

export function clearBit(bits: Bits, number: number): void {
  bits[number >>> 5] = ((bits[number >>> 5] ?? 0) & ~(1 << (number & 31))) >>> 0;
}

export function hasBit(bits: Bits, number: number): boolean {
  return ((bits[number >>> 5] ?? 0) & (1 << (number & 31))) !== 0;
}

/** Leaves in `bits` what is in `other` too. */
export function keepBits(bits: Bits, other: Bits): void {
  for (let word = 0; word < bitWords; word++) bits[word] = ((bits[word] ?? 0) & (other[word] ?? 0)) >>> 0;
}

/** Of both, the lowest number that they have in common. */
export function lowestCommonBit(a: Bits, b: Bits): number | undefined {
  for (let word = 0; word < bitWords; word++) {
    const common = (a[word] ?? 0) & (b[word] ?? 0);
    if (common !== 0) return word * 32 + 31 - Math.clz32(common & -common);
  }
  return undefined;
}

/** Of each set of alternatives another text. */
export function bitsKey(bits: Bits): string {
  return bits.join();
}
