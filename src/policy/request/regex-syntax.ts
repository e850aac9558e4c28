import { type CharSet, complement, foldCase, perlClasses, posixClasses } from './regex-sets.ts';

/** An expression as a tree. Which of several ways it matches makes no difference here, so laziness and groups are gone. */
export type Node =
  | { readonly is: 'empty' | 'never' | 'begin' | 'end' }
  | { readonly is: 'set'; readonly set: CharSet }
  | { readonly is: 'sequence' | 'choice'; readonly parts: readonly Node[] }
  /** `max` undefined: without end. */
  | { readonly is: 'repeat'; readonly part: Node; readonly min: number; readonly max: number | undefined };

/** Why an expression cannot be read; the message goes to its author. */
export class RegexError extends Error {}

interface Flags {
  readonly ignoreCase: boolean;
  readonly dotAll: boolean;
}

/** As in RE2, for `{n,m}`. */
const maxRepeat = 1000;
const maxDepth = 200;
const literalEscapes: Readonly<Record<string, number>> = { n: 0x0a, r: 0x0d, t: 0x09, f: 0x0c, v: 0x0b, a: 0x07 };

/** @throws {RegexError} */
export function parse(text: string): Node {
  const parser = new Parser(Array.from(text));
  const node = parser.choice({ ignoreCase: false, dotAll: false }, 0);
  if (!parser.done) throw new RegexError('has a ")" too many');
  return node;
}

class Parser {
  readonly #chars: readonly string[];
  #at = 0;

  constructor(chars: readonly string[]) {
    this.#chars = chars;
  }

  get done(): boolean {
    return this.#at >= this.#chars.length;
  }

  get #next(): string | undefined {
    return this.#chars[this.#at];
  }

  choice(outer: Flags, depth: number): Node {
    if (depth > maxDepth) throw new RegexError('is nested too deeply');
    let flags = outer;
    const parts: Node[] = [];
    let sequence: Node[] = [];
    while (!this.done && this.#next !== ')') {
      if (this.#takes('|')) {
        parts.push({ is: 'sequence', parts: sequence });
        sequence = [];
        continue;
      }
      const changed = this.#flagsOnly(flags);
      if (changed !== undefined) flags = changed;
      else sequence.push(this.#repeated(this.#atom(flags, depth)));
    }
    parts.push({ is: 'sequence', parts: sequence });
    const [only] = parts;
    return parts.length === 1 && only !== undefined ? only : { is: 'choice', parts };
  }

  #takes(text: string): boolean {
    const found = [...text].every((char, index) => this.#chars[this.#at + index] === char);
    if (found) this.#at += text.length;
    return found;
  }

  #take(): string {
    const char = this.#next;
    if (char === undefined) throw new RegexError('ends in the middle');
    this.#at++;
    return char;
  }

  /** `(?i)`, which goes for the rest of the group. */
  #flagsOnly(flags: Flags): Flags | undefined {
    const rest = this.#chars.slice(this.#at, this.#at + 8).join('');
    const [whole, letters] = /^\(\?([a-zA-Z]*(?:-[a-zA-Z]+)?)\)/.exec(rest) ?? [];
    if (whole === undefined || letters === undefined) return undefined;
    this.#at += whole.length;
    return withFlags(flags, letters);
  }

  #atom(flags: Flags, depth: number): Node {
    const char = this.#take();
    switch (char) {
      case '(':
        return this.#group(flags, depth);
      case '[':
        return { is: 'set', set: this.#class(flags) };
      case '.':
        return { is: 'set', set: { ranges: flags.dotAll ? [] : [[0x0a, 0x0a]], negated: true } };
      case '^':
        return { is: 'begin' };
      case '$':
        return { is: 'end' };
      case '\\':
        return this.#escape(flags);
      case '*':
      case '+':
      case '?':
        throw new RegexError(`has nothing before "${char}" to repeat`);
      default:
        return single(pointOf(char), flags);
    }
  }

  #group(flags: Flags, depth: number): Node {
    let inner = flags;
    if (this.#takes('?')) {
      const rest = this.#chars.slice(this.#at, this.#at + 100).join('');
      const [head, letters] = /^([a-zA-Z]*(?:-[a-zA-Z]+)?):/.exec(rest) ?? /^P?<[A-Za-z_]\w*>/.exec(rest) ?? [];
      if (head === undefined) throw new RegexError('has a group of a sort that is not supported');
      this.#at += head.length;
      if (letters !== undefined) inner = withFlags(flags, letters);
    }
    const node = this.choice(inner, depth + 1);
    if (!this.#takes(')')) throw new RegexError('has a "(" that is not closed');
    return node;
  }

  #repeated(atom: Node): Node {
    const bounds = this.#bounds();
    if (bounds === undefined) return atom;
    this.#takes('?');
    if (['*', '+', '?'].includes(this.#next ?? '') || this.#peekBounds() !== undefined)
      throw new RegexError('repeats what is repeated already');
    return { is: 'repeat', part: atom, ...bounds };
  }

  #bounds(): { min: number; max: number | undefined } | undefined {
    if (this.#takes('*')) return { min: 0, max: undefined };
    if (this.#takes('+')) return { min: 1, max: undefined };
    if (this.#takes('?')) return { min: 0, max: 1 };
    const counted = this.#peekBounds();
    if (counted === undefined) return undefined;
    this.#at += counted.length;
    const { min, max } = counted;
    if (min > maxRepeat || (max ?? 0) > maxRepeat) throw new RegexError(`repeats more than ${maxRepeat} times`);
    if (max !== undefined && max < min) throw new RegexError('has a count that ends before it begins');
    return { min, max };
  }

  /** `{2}`, `{2,}`, `{2,5}`; any other brace stands for itself. */
  #peekBounds(): { min: number; max: number | undefined; length: number } | undefined {
    if (this.#next !== '{') return undefined;
    const rest = this.#chars.slice(this.#at, this.#at + 20).join('');
    const [whole, min, comma, max] = /^\{(\d{1,6})(,)?(\d{1,6})?\}/.exec(rest) ?? [];
    if (whole === undefined || min === undefined || (comma === undefined && max !== undefined)) return undefined;
    const last = comma === undefined ? Number(min) : max === undefined ? undefined : Number(max);
    return { min: Number(min), max: last, length: whole.length };
  }

  #escape(flags: Flags): Node {
    const char = this.#take();
    if (char === 'A') return { is: 'begin' };
    if (char === 'z') return { is: 'end' };
    if (char === 'Q') return { is: 'sequence', parts: this.#quoted().map((one) => single(pointOf(one), flags)) };
    const ranges = perlRanges(char);
    if (ranges !== undefined) return { is: 'set', set: { ranges, negated: false } };
    return single(this.#escapedPoint(char), flags);
  }

  #quoted(): string[] {
    const out: string[] = [];
    while (!this.done && !this.#takes('\\E')) out.push(this.#take());
    return out;
  }

  #escapedPoint(char: string): number {
    const known = literalEscapes[char];
    if (known !== undefined && Object.hasOwn(literalEscapes, char)) return known;
    if (char === 'x') {
      const rest = this.#chars.slice(this.#at, this.#at + 10).join('');
      const [whole, braced, plain] = /^(?:\{([0-9A-Fa-f]{1,6})\}|([0-9A-Fa-f]{2}))/.exec(rest) ?? [];
      const point = Number.parseInt(braced ?? plain ?? '', 16);
      if (whole === undefined || point > 0x10_ffff) throw new RegexError('has an escape \\x without a code');
      this.#at += whole.length;
      return point;
    }
    if (/^[A-Za-z0-9]$/.test(char)) throw new RegexError(`has the escape \\${char}, which is not supported`);
    return pointOf(char);
  }

  #class(flags: Flags): CharSet {
    const negated = this.#takes('^');
    const ranges: (readonly [number, number])[] = [];
    for (let first = true; first || !this.#takes(']'); first = false) {
      const whole = this.#classInClass();
      if (whole !== undefined) {
        ranges.push(...whole);
        continue;
      }
      const from = this.#classPoint();
      const isRange = this.#next === '-' && this.#chars[this.#at + 1] !== ']' && this.#takes('-');
      const to = isRange ? this.#classPoint() : from;
      if (to < from) throw new RegexError('has a range that ends before it begins');
      ranges.push([from, to]);
    }
    return { ranges: flags.ignoreCase ? foldCase(ranges) : ranges, negated };
  }

  /** `[:alpha:]` or `\d`. */
  #classInClass(): CharSet['ranges'] | undefined {
    const rest = this.#chars.slice(this.#at, this.#at + 12).join('');
    const [posix, not, name = ''] = /^\[:(\^?)([a-z]+):\]/.exec(rest) ?? [];
    if (posix !== undefined) {
      const ranges = Object.hasOwn(posixClasses, name) ? posixClasses[name] : undefined;
      if (ranges === undefined) throw new RegexError(`has the class ${posix}, which there is not`);
      this.#at += posix.length;
      return not === '^' ? complement(ranges) : ranges;
    }
    const [perl, letter = ''] = /^\\([dswDSW])/.exec(rest) ?? [];
    if (perl === undefined) return undefined;
    this.#at += 2;
    return perlRanges(letter);
  }

  #classPoint(): number {
    const char = this.#take();
    return char === '\\' ? this.#escapedPoint(this.#take()) : pointOf(char);
  }
}

function withFlags(flags: Flags, letters: string): Flags {
  const [on = '', off = ''] = letters.split('-');
  // U only swaps greedy and lazy, which makes no difference to whether a whole text matches.
  if (/[^isU]/.test(on + off))
    throw new RegexError(`has the flags (?${letters}), of which only i, s and U are supported`);
  const set = (letter: string, before: boolean): boolean =>
    off.includes(letter) ? false : on.includes(letter) ? true : before;
  return { ignoreCase: set('i', flags.ignoreCase), dotAll: set('s', flags.dotAll) };
}

function perlRanges(letter: string): CharSet['ranges'] | undefined {
  const lower = letter.toLowerCase();
  const ranges = Object.hasOwn(perlClasses, lower) ? perlClasses[lower] : undefined;
  return ranges === undefined || letter === lower ? ranges : complement(ranges);
}

function single(point: number, { ignoreCase }: Flags): Node {
  const ranges = [[point, point] as const];
  return { is: 'set', set: { ranges: ignoreCase ? foldCase(ranges) : ranges, negated: false } };
}

function pointOf(char: string): number {
  return char.codePointAt(0) ?? 0;
}
