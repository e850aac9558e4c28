/** Code points: those of the ranges, or all others. */
export interface CharSet {
  readonly ranges: readonly (readonly [from: number, to: number])[];
  readonly negated: boolean;
}

type Ranges = CharSet['ranges'];

const digits: Ranges = [[0x30, 0x39]];
const upper: Ranges = [[0x41, 0x5a]];
const lower: Ranges = [[0x61, 0x7a]];
/** `\s` of RE2 and Perl before 5.18: no vertical tab. */
const spaces: Ranges = [
  [0x09, 0x0a],
  [0x0c, 0x0d],
  [0x20, 0x20],
];
const word: Ranges = [...digits, ...upper, ...lower, [0x5f, 0x5f]];

/** By the letter after the backslash; capital letters are the complements. */
export const perlClasses: Readonly<Record<string, Ranges>> = { d: digits, s: spaces, w: word };

/** By the name between `[:` and `:]`. */
export const posixClasses: Readonly<Record<string, Ranges>> = {
  alnum: [...digits, ...upper, ...lower],
  alpha: [...upper, ...lower],
  ascii: [[0x00, 0x7f]],
  blank: [
    [0x09, 0x09],
    [0x20, 0x20],
  ],
  cntrl: [
    [0x00, 0x1f],
    [0x7f, 0x7f],
  ],
  digit: digits,
  graph: [[0x21, 0x7e]],
  lower,
  print: [[0x20, 0x7e]],
  punct: [
    [0x21, 0x2f],
    [0x3a, 0x40],
    [0x5b, 0x60],
    [0x7b, 0x7e],
  ],
  space: [
    [0x09, 0x0d],
    [0x20, 0x20],
  ],
  upper,
  word,
  xdigit: [...digits, [0x41, 0x46], [0x61, 0x66]],
};

const lastPoint = 0x10_ffff;

/** @returns The ranges of all points that are in none of these. */
export function complement(ranges: Ranges): Ranges {
  const sorted = [...ranges].sort(([a], [b]) => a - b);
  const out: [number, number][] = [];
  let next = 0;
  for (const [from, to] of sorted) {
    if (from > next) out.push([next, from - 1]);
    next = Math.max(next, to + 1);
  }
  if (next <= lastPoint) out.push([next, lastPoint]);
  return out;
}

/** @returns The ranges and, of their ASCII letters, the other case. */
export function foldCase(ranges: Ranges): Ranges {
  const others = ranges.flatMap(([from, to]) =>
    [
      { low: 0x41, high: 0x5a, shift: 0x20 },
      { low: 0x61, high: 0x7a, shift: -0x20 },
    ].flatMap(({ low, high, shift }): [number, number][] => {
      const [a, b] = [Math.max(from, low), Math.min(to, high)];
      return a <= b ? [[a + shift, b + shift]] : [];
    }),
  );
  return [...ranges, ...others];
}
