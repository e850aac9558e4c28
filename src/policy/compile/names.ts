import { createHash } from 'node:crypto';
import { firstNameIdentity, type IdentityNumber, identityNumber, lastNameIdentity } from '../../model/identity.ts';
import type { PolicyImage, SetIds } from '../image.ts';
import { stages } from '../image.ts';
import { buildMatcher, type NameDfas, type NameMatcher, type StageSets } from '../names/matcher.ts';
import type { DomainPattern } from '../request/domain.ts';
import type { QuestionRule, SubjectSide } from './asked.ts';
import { Numbers } from './numbers.ts';
import type { RuleSets } from './sets.ts';

export interface PatternNumbers {
  readonly patterns: ReadonlyMap<IdentityNumber, string>;
  readonly byPattern: ReadonlyMap<string, IdentityNumber>;
  readonly next: number;
}

/**
 * Numbers for the patterns that egress rules have as peers, kept from the previous image where the pattern was there: a
 * restored one knows them too, so that what was learnt under a number means the same for ever.
 */
export function numberPatterns(sides: Iterable<SubjectSide>, previous: PolicyImage | undefined): PatternNumbers {
  const known = new Map([...(previous?.patterns ?? [])].map(([number, pattern]) => [pattern, number]));
  const range = { first: firstNameIdentity, last: lastNameIdentity };
  const numbers = new Numbers(known, previous?.counters.pattern ?? range.first, range);
  const wanted = new Set<string>();
  for (const side of new Set(sides)) for (const pattern of learntBy(side)) wanted.add(pattern);
  const assigned = [...numbers.assign(wanted)].map(([pattern, number]) => [pattern, identityNumber(number)] as const);
  return {
    patterns: new Map(assigned.map(([pattern, number]) => [number, pattern])),
    byPattern: new Map(assigned),
    next: numbers.next,
  };
}

/** Collects the matchers of an image; endpoints of which the same is asked share one. */
export class Matchers {
  readonly all = new Map<number, NameMatcher>();
  readonly #sets: RuleSets;
  readonly #byPattern: PatternNumbers['byPattern'];
  readonly #dfas: NameDfas;
  readonly #previous: ReadonlyMap<string, NameMatcher>;
  readonly #numbers: Numbers;
  readonly #bySide = new Map<SubjectSide, number>();

  constructor(sets: RuleSets, { byPattern }: PatternNumbers, dfas: NameDfas, previous: PolicyImage | undefined) {
    this.#sets = sets;
    this.#byPattern = byPattern;
    this.#dfas = dfas;
    this.#previous = new Map([...(previous?.matchers.values() ?? [])].map((matcher) => [matcher.key, matcher]));
    const known = new Map([...this.#previous].map(([key, { id }]) => [key, id]));
    this.#numbers = new Numbers(known, previous?.counters.matcher ?? 1, { first: 1, last: 0xffff_ffff });
  }

  get next(): number {
    return this.#numbers.next;
  }

  /**
   * @param audited What would be asked if audited policies were enforced: its names are learnt, too.
   * @returns The matcher for pods of which this is asked; 0 where it has nothing to do with names.
   */
  idFor(side: SubjectSide, sets: SetIds, audited?: SubjectSide): number {
    const known = this.#bySide.get(side);
    if (known !== undefined) return known;
    const made = this.#make(side, sets, audited ?? side);
    this.#bySide.set(side, made?.id ?? 0);
    if (made !== undefined) this.all.set(made.id, made);
    return made?.id ?? 0;
  }

  #make(side: SubjectSide, own: SetIds, audited: SubjectSide): NameMatcher | undefined {
    const learnt = new Map(
      [...new Set([...learntBy(side), ...learntBy(audited)])].sort().flatMap((pattern) => {
        const number = this.#byPattern.get(pattern);
        return number === undefined ? [] : [[pattern, number] as const];
      }),
    );
    const asked = askedBy(side);
    const [learns, asks] = [learnt.size > 0, asked !== undefined];
    if (!learns && !asks) return undefined;
    const none: StageSets = { admin: 0, network: 0, mesh: 0 };
    const setsOf = (which: (rule: QuestionRule) => boolean): StageSets =>
      asks ? this.#sets.forQuestions(questionSide(side, which)) : none;
    const parts = buildMatcher(
      {
        learnt,
        asked: asked ?? [],
        setsFor: (matched) => {
          const patterns = new Set(matched.map(({ pattern }) => pattern));
          return setsOf(({ names }) => names === undefined || names.some(({ pattern }) => patterns.has(pattern)));
        },
        strict: asks ? { admin: own.egressAdminSet, network: own.egressSet, mesh: own.egressMeshSet } : none,
        lenient: setsOf(({ names, rule }) => names === undefined || rule.verdict === 'allow'),
      },
      this.#dfas,
    );
    const made = [[...learnt], (asked ?? []).map(({ pattern }) => pattern), parts.lenient, parts.accepts];
    const key = createHash('sha256').update(JSON.stringify(made)).digest('base64');
    const old = this.#previous.get(key) ?? [...this.all.values()].find((matcher) => matcher.key === key);
    return old ?? { id: this.#numbers.fresh(), key, learns, asks, ...parts };
  }
}

/** The patterns that rules have as peers, sorted. */
function learntBy(side: SubjectSide): string[] {
  const found = new Set<string>();
  for (const stage of stages)
    for (const { rule } of [...(side[stage]?.rules ?? []), ...(side[stage]?.questions ?? [])])
      if (rule.peers !== 'any')
        for (const peer of rule.peers) if (peer.kind === 'name') found.add(peer.pattern.pattern);
  return [...found].sort();
}

/** The patterns that rules ask of questions, sorted; undefined where none does. */
function askedBy(side: SubjectSide): readonly DomainPattern[] | undefined {
  const rules = stages.flatMap((stage) => side[stage]?.questions ?? []);
  if (rules.length === 0) return undefined;
  const found = new Set(rules.flatMap(({ names = [] }) => names.map(({ pattern }) => pattern)));
  return [...found].sort().map((pattern) => ({ pattern }));
}

/** What is asked about a question for which these of the rules count, as if they asked nothing of it. */
function questionSide(side: SubjectSide, which: (rule: QuestionRule) => boolean): SubjectSide {
  const only = ({ questions = [], isolation }: SubjectSide['network']) => ({
    rules: questions.filter(which),
    isolation,
  });
  return {
    ...(side.admin === undefined ? {} : { admin: only(side.admin) }),
    network: only(side.network),
    ...(side.mesh === undefined ? {} : { mesh: only(side.mesh) }),
  };
}
