import { percentile } from '../src/cli/percentile.ts';

/** One measured bar. Ratios are of two measurements of the same run, because absolute numbers are not stable. */
export interface BenchResult {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** What `value` is held against, measured in the same run; null where the bar is absolute. */
  readonly baseline: number | null;
  /** value / baseline; null where the bar is absolute. */
  readonly ratio: number | null;
  /** The bar in words, such as `ratio >= 0.85`. */
  readonly bar: string;
  readonly pass: boolean;
}

type Bound = { readonly atLeast: number } | { readonly atMost: number };

/** A bar on the ratio of two measurements. */
export function ratioBar(name: string, unit: string, value: number, baseline: number, bound: Bound): BenchResult {
  const ratio = value / baseline;
  return { name, value, unit, baseline, ratio, bar: `ratio ${words(bound)}`, pass: holds(ratio, bound) };
}

/** A bar on one measurement, where the issue names an absolute one. */
export function absoluteBar(name: string, unit: string, value: number, bound: Bound): BenchResult {
  return { name, value, unit, baseline: null, ratio: null, bar: `${words(bound)} ${unit}`, pass: holds(value, bound) };
}

export function median(samples: readonly number[]): number {
  return percentile(samples, 0.5);
}

function words(bound: Bound): string {
  return 'atLeast' in bound ? `>= ${bound.atLeast}` : `<= ${bound.atMost}`;
}

function holds(value: number, bound: Bound): boolean {
  return 'atLeast' in bound ? value >= bound.atLeast : value <= bound.atMost;
}
