import type { IdentityNumber } from '../../model/identity.ts';
import type { DomainPattern } from '../request/domain.ts';
import { buildNameDfa, type NameDfa, runStates } from './dfa.ts';

/** An address has at most so many patterns at one endpoint; a name of more teaches nothing. `NAME_PATTERNS` in bpf/lib/dns_layout.h. */
export const mostPatterns = 8;

/** The egress rule sets of an endpoint, by stage. */
export interface StageSets {
  readonly admin: number;
  readonly network: number;
  readonly mesh: number;
}

/** What is to be done about a name. */
export interface NameAccept {
  /** What a question for it is judged by. */
  readonly sets: StageSets;
  /** What its addresses are learnt under, sorted. More than `mostPatterns`: the answer does not come through. */
  readonly patterns: readonly IdentityNumber[];
}

/**
 * All that an endpoint's egress policy has to do with DNS: maps `name_matchers`, `name_states` and `name_accepts`. Never
 * changed under its id.
 */
export interface NameMatcher {
  readonly id: number;
  /** Equal for equal matchers. */
  readonly key: string;
  /** Whether rules are about names' addresses. */
  readonly learns: boolean;
  /** Whether rules are about which names may be asked. */
  readonly asks: boolean;
  /** What the opening of a stream for questions is judged by: whatever some question would be allowed. */
  readonly lenient: StageSets;
  readonly states: readonly { readonly next: readonly number[]; readonly accept: number }[];
  readonly accepts: readonly NameAccept[];
}

export type MatcherParts = Omit<NameMatcher, 'id' | 'key' | 'learns' | 'asks'>;

/** What a matcher is made of. */
export interface MatcherGrounds {
  /** What rules say of names' addresses, with the pattern's number. */
  readonly learnt: ReadonlyMap<string, IdentityNumber>;
  /** What rules say of questions. */
  readonly asked: readonly DomainPattern[];
  /** By which sets a question is judged whose name is one of these of `asked`. */
  setsFor(matched: readonly DomainPattern[]): StageSets;
  /** As it is where no question is seen. */
  readonly strict: StageSets;
  readonly lenient: StageSets;
}

/** DFAs by the patterns that they are made of; those that were not asked for lately go. */
export class NameDfas {
  #known = new Map<string, NameDfa | undefined>();
  #used = new Map<string, NameDfa | undefined>();

  /** @param patterns In order, each once. @returns Undefined where they are too many. */
  of(patterns: readonly string[]): NameDfa | undefined {
    const key = patterns.join(' ');
    const known = this.#used.has(key) || this.#known.has(key);
    const dfa = known
      ? (this.#used.get(key) ?? this.#known.get(key))
      : buildNameDfa(patterns.map((pattern) => ({ pattern })));
    this.#used.set(key, dfa);
    return dfa;
  }

  /** Forgets what was not asked for since the last time. */
  turn(): void {
    this.#known = this.#used;
    this.#used = new Map();
  }
}

/**
 * The parts of a matcher. Where the patterns take more states than the datapath numbers, one that knows no name: it
 * teaches nothing, and questions are judged as if they could not be read.
 */
export function buildMatcher(grounds: MatcherGrounds, dfas: NameDfas): MatcherParts {
  const { learnt, asked, strict, lenient } = grounds;
  const patterns = [...new Set([...learnt.keys(), ...asked.map(({ pattern }) => pattern)])].sort();
  const dfa = dfas.of(patterns);
  if (dfa === undefined) return { lenient, states: [deadState, deadState], accepts: [{ sets: strict, patterns: [] }] };
  const accepts: NameAccept[] = [];
  const byKey = new Map<string, number>();
  const numberOf = (accept: NameAccept): number => {
    const key = `${setsKey(accept.sets)} ${accept.patterns.join()}`;
    const known = byKey.get(key);
    if (known !== undefined) return known;
    byKey.set(key, accepts.length);
    return accepts.push(accept) - 1;
  };
  const byMatched = new Map<string, number>();
  const acceptOf = (matched: readonly number[]): number => {
    const key = matched.join();
    const known = byMatched.get(key);
    if (known !== undefined) return known;
    const names = new Set(matched.map((at) => patterns[at]));
    const sets = grounds.setsFor(asked.filter(({ pattern }) => names.has(pattern)));
    const numbers = [...learnt].flatMap(([pattern, number]) => (names.has(pattern) ? [number] : []));
    const number = numberOf({ sets, patterns: numbers.sort((a, b) => a - b) });
    byMatched.set(key, number);
    return number;
  };
  const states = dfa.next.map((next, state) => ({ next, accept: acceptOf(dfa.accepts[state] ?? []) }));
  return { lenient, states, accepts };
}

const deadState = { next: [], accept: 0 } as const;

/** @returns What the datapath finds for a name in lower case, the root's being `.`. */
export function matchName({ states, accepts }: Pick<NameMatcher, 'states' | 'accepts'>, name: string): NameAccept {
  const state = runStates(
    states.map(({ next }) => next),
    name,
  );
  return accepts[states[state]?.accept ?? 0] ?? { sets: { admin: 0, network: 0, mesh: 0 }, patterns: [] };
}

function setsKey({ admin, network, mesh }: StageSets): string {
  return `${admin},${network},${mesh}`;
}
