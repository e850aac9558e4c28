import { type Result, refusal, success } from '../../model/result.ts';
import { compile, type Program } from '../request/regex.ts';
import { RegexError } from '../request/regex-syntax.ts';
import type { HttpMatch, RequestText, TextCondition } from '../request.ts';
import { type Automaton, type Budget, determinize, TooManyStates } from './automaton.ts';
import { alternativeLimit, type Bits, bitsKey, bitWords, clearBit, firstBits, noBits, setBit } from './bits.ts';
import { type ByteClasses, classesOf, NotByBytes } from './classes.ts';
import { nodeOf } from './text-node.ts';

/**
 * What tells which of some alternatives a request is, as the datapath has it (`struct http_matcher` in
 * bpf/lib/http_tables.h says what the tables mean). Rows and accepts are numbered from 0 here.
 */
export interface RequestTables {
  /** How many alternatives there are. */
  readonly count: number;
  /** By byte. */
  readonly classes: Uint8Array;
  /** `http_row.next`, one after the other, `classLimit` a row. Row 0 is dead. */
  readonly next: Uint16Array;
  /** `http_row.accept`, by row. */
  readonly accept: Uint32Array;
  /** `http_accepts`, one after the other. Accept 0 has no bits. */
  readonly accepts: Uint32Array;
  readonly start: Readonly<Record<Part, number>>;
  readonly absentHost: number;
  /** By header slot. The row at which its values are begun with, and the accept where there is none. */
  readonly headers: readonly { readonly name: string; readonly start: number; readonly absent: number }[];
  /** Where names of headers are begun with; accepts are 1 + slot. */
  readonly nameStart: number;
}

/** Tables that tell nothing of any request. */
export const noTables: RequestTables = {
  count: 0,
  classes: new Uint8Array(256),
  next: new Uint16Array(0),
  accept: new Uint32Array(0),
  accepts: new Uint32Array(0),
  start: { method: 0, path: 0, target: 0, host: 0 },
  absentHost: 0,
  headers: [],
  nameStart: 0,
};

/** Whether two tables tell the same of every request, by being the same. */
export function sameTables(a: RequestTables, b: RequestTables): boolean {
  if (a === b) return true;
  const same = (one: ArrayLike<number>, other: ArrayLike<number>): boolean => {
    if (one.length !== other.length) return false;
    for (let at = 0; at < one.length; at++) if (one[at] !== other[at]) return false;
    return true;
  };
  return (
    a.count === b.count &&
    a.absentHost === b.absentHost &&
    a.nameStart === b.nameStart &&
    parts.every((part) => a.start[part] === b.start[part]) &&
    a.headers.length === b.headers.length &&
    a.headers.every(({ name, start, absent }, slot) => {
      const other = b.headers[slot];
      return name === other?.name && start === other.start && absent === other.absent;
    }) &&
    same(a.classes, b.classes) &&
    same(a.accept, b.accept) &&
    same(a.accepts, b.accepts) &&
    same(a.next, b.next)
  );
}

const parts = ['method', 'path', 'target', 'host'] as const;
type Part = (typeof parts)[number];

/** As in bpf/lib/http_tables.h; test/datapath/layouts.test.ts holds them together. */
export const tableLimits = {
  alternatives: alternativeLimit,
  /** Every byte that a text may have by itself, at most; so it is never met. */
  classes: 100,
  names: 16,
  /** Of `http_rows`, which all matchers of a node share. */
  rows: 49_000,
  accepts: 16_000,
} as const;

/** Steps on the way to states: half a second's. A thousand paths take some ten thousand. */
const workLimit = 3_000_000;

/**
 * The tables for alternatives that are numbered by their order.
 * @param matches Of HTTP; what they ask of the server's name is not looked at.
 * @returns Why there are none, to follow "the policy": it asks for too much, or for what bytes do not tell.
 */
export function compileMatcher(matches: readonly HttpMatch[]): Result<RequestTables, string> {
  const made = attempt(matches);
  return made instanceof Error ? refusal(made.message) : success(made);
}

/** Why there are no tables for a match by itself; `ofRoom`: for want of room only, so that whoever has more could tell. */
export function whyNoTables(match: HttpMatch): { readonly reason: string; readonly ofRoom: boolean } | undefined {
  const made = attempt([match]);
  return made instanceof Error ? { reason: made.message, ofRoom: made instanceof TooManyStates } : undefined;
}

function attempt(matches: readonly HttpMatch[]): RequestTables | RegexError | NotByBytes | TooManyStates {
  try {
    return new Tables(matches).make();
  } catch (error) {
    if (error instanceof RegexError || error instanceof NotByBytes || error instanceof TooManyStates) return error;
    throw error;
  }
}

/** What one part of a request is asked, by all alternatives that ask about it; texts by their place in `texts`. */
interface Asked {
  readonly texts: readonly Program[];
  /** By alternative: what it asks, all of which must hold. */
  readonly conditions: ReadonlyMap<number, readonly Condition[]>;
  /** By text, the alternatives that it makes a difference to. */
  readonly touched: readonly (readonly number[])[];
  /** The alternatives that are left standing by what is none of the texts. */
  readonly base: Bits;
}

interface Condition {
  readonly some: readonly number[] | undefined;
  readonly none: readonly number[];
}

class Tables {
  readonly #matches: readonly HttpMatch[];
  readonly #programs = new Map<string, Program>();
  readonly #budget: Budget = { states: tableLimits.rows - 1, work: workLimit };
  readonly #next: number[][] = [];
  readonly #accept: number[] = [0];
  readonly #accepts: Bits[] = [noBits()];
  readonly #acceptOf = new Map<string, number>([[bitsKey(noBits()), 0]]);

  constructor(matches: readonly HttpMatch[]) {
    if (matches.length > tableLimits.alternatives)
      throw new TooManyStates(`asks for more than ${tableLimits.alternatives} things of requests`);
    this.#matches = matches;
  }

  make(): RequestTables {
    const asked = parts.map((part) => [part, this.#askedOf((match) => match[part] ?? [])] as const);
    const names = [...new Set(this.#matches.flatMap(({ headers = [] }) => headers.map(({ name }) => name)))].sort();
    if (names.length > tableLimits.names) throw new TooManyStates(`asks about more than ${tableLimits.names} headers`);
    const slots = names.map((name) => ({
      name,
      asked: this.#askedOf(({ headers = [] }) => headers.filter((condition) => condition.name === name)),
    }));
    const namePrograms = names.map((text) => this.#programOf({ op: 'exact', text }));
    const classes = classesOf(this.#programs.values());
    if (classes.count > tableLimits.classes) throw new TooManyStates('asks for too many different bytes');

    this.#next.push(new Array<number>(classes.count).fill(0));
    const start: Record<Part, number> = { method: 0, path: 0, target: 0, host: 0 };
    let absentHost = 0;
    for (const [part, one] of asked) {
      if (one.conditions.size === 0) continue;
      start[part] = this.#add(one, classes);
      if (part === 'host') absentHost = this.#acceptFor(one.base);
    }
    const headers = slots.map(({ name, asked: one }) => ({
      name,
      start: this.#add(one, classes),
      absent: this.#acceptFor(one.base),
    }));
    const slotOf = ([slot]: readonly number[]): number => (slot === undefined ? 0 : slot + 1);
    const nameStart = names.length === 0 ? 0 : this.#place(determinize(namePrograms, classes, this.#budget), slotOf);
    return {
      count: this.#matches.length,
      classes: classes.of,
      ...this.#packed(),
      start,
      absentHost,
      headers,
      nameStart,
    };
  }

  #askedOf(read: (match: HttpMatch) => TextCondition | readonly TextCondition[]): Asked {
    const texts: Program[] = [];
    const touched: Set<number>[] = [];
    const known = new Map<string, number>();
    const conditions = new Map<number, Condition[]>();
    const base = firstBits(this.#matches.length);
    for (const [number, match] of this.#matches.entries()) {
      const numberOf = (text: RequestText): number => {
        const key = textKey(text);
        const at = known.get(key) ?? texts.push(this.#programOf(text)) - 1;
        known.set(key, at);
        touched[at] = (touched[at] ?? new Set()).add(number);
        return at;
      };
      const own = [read(match)]
        .flat()
        .map(({ some, none = [] }): Condition => ({ some: some?.map(numberOf), none: none.map(numberOf) }));
      if (own.length === 0) continue;
      conditions.set(number, own);
      if (!allHold(own, new Set())) clearBit(base, number);
    }
    return { texts, conditions, touched: touched.map((numbers) => [...numbers]), base };
  }

  #programOf(text: RequestText): Program {
    const key = textKey(text);
    const known = this.#programs.get(key);
    if (known !== undefined) return known;
    const made = compile(nodeOf(text));
    this.#programs.set(key, made);
    return made;
  }

  /** @returns The row that a text of this part is begun with. */
  #add(asked: Asked, classes: ByteClasses): number {
    const automaton = determinize(asked.texts, classes, this.#budget);
    return this.#place(automaton, (found) => this.#acceptFor(bitsFor(asked, found)));
  }

  #place({ next, found }: Automaton, acceptOf: (found: readonly number[]) => number): number {
    const first = this.#next.length;
    const classes = this.#next[0]?.length ?? 0;
    for (const [state, texts] of found.entries()) {
      this.#next.push(next.slice(state * classes, (state + 1) * classes).map((target) => first + target));
      this.#accept.push(acceptOf(texts));
    }
    return first;
  }

  #acceptFor(bits: Bits): number {
    const key = bitsKey(bits);
    const known = this.#acceptOf.get(key);
    if (known !== undefined) return known;
    if (this.#accepts.length >= tableLimits.accepts)
      throw new TooManyStates('asks for more combinations than the datapath has room for');
    this.#acceptOf.set(key, this.#accepts.length);
    return this.#accepts.push(bits) - 1;
  }

  #packed(): Pick<RequestTables, 'next' | 'accept' | 'accepts'> {
    const next = new Uint16Array(this.#next.length * tableLimits.classes);
    for (const [row, targets] of this.#next.entries()) next.set(targets, row * tableLimits.classes);
    const accepts = new Uint32Array(this.#accepts.length * bitWords);
    for (const [number, bits] of this.#accepts.entries()) accepts.set(bits, number * bitWords);
    return { next, accept: Uint32Array.from(this.#accept), accepts };
  }
}

/** The alternatives that are left standing where a part is just these of the texts that it is asked for. */
function bitsFor({ base, touched, conditions }: Asked, found: readonly number[]): Bits {
  const bits = base.slice();
  const those = new Set(found);
  for (const text of found)
    for (const number of touched[text] ?? [])
      if (allHold(conditions.get(number) ?? [], those)) setBit(bits, number);
      else clearBit(bits, number);
  return bits;
}

function allHold(conditions: readonly Condition[], found: ReadonlySet<number>): boolean {
  const is = (text: number): boolean => found.has(text);
  return conditions.every(({ some, none }) => (some?.some(is) ?? true) && !none.some(is));
}

function textKey(text: RequestText): string {
  return JSON.stringify([text.op, 'text' in text ? text.text : '', 'ignoreCase' in text && text.ignoreCase]);
}
