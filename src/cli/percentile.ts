/**
 * @param share 0 to 1: 0.5 is the median.
 * @returns The smallest sample that so large a share of all is not above; NaN of none.
 */
export function percentile(samples: readonly number[], share: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}
