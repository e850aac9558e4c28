import type { PodView } from '../../model/endpoint.ts';
import { type IdentityNumber, reservedIdentity } from '../../model/identity.ts';
import type { Direction, RuleRef } from '../../model/verdict.ts';
import { sameTables } from '../http/matcher.ts';
import { type Alternative, type RuleSetMatcher, tablesFor } from '../http/readable.ts';
import {
  noSet,
  type PolicyEntry,
  type PolicyImage,
  type RuleSet,
  reservedRules,
  ruleSetFlags,
  type SetIds,
  type Stage,
  setNames,
  stages,
} from '../image.ts';
import type { StageSets } from '../names/matcher.ts';
import { withoutRequests } from '../rule.ts';
import type { AskedRule, Isolation, StageRules, SubjectSide } from './asked.ts';
import {
  compileEntries,
  entriesOf,
  isNamed,
  type NumberedRule,
  namedPortsKey,
  patchEntries,
  precedenceOf,
  probesOf,
} from './entries.ts';
import { Numbers } from './numbers.ts';
import type { PeerIndex } from './peers.ts';

const noSets: SetIds = {
  ingressAdminSet: noSet,
  ingressSet: noSet,
  ingressMeshSet: noSet,
  egressAdminSet: noSet,
  egressSet: noSet,
  egressMeshSet: noSet,
};

/** The rules that a set was compiled from, for those who judge by rules and not by entries. */
export interface MadeOf {
  /** In the order in which they decide. */
  readonly rules: readonly NumberedRule[];
  /** Ingress: the named ports of the endpoint. */
  readonly ownPorts: PodView['namedPorts'];
}

const made = new WeakMap<RuleSet, MadeOf>();

/** @returns Undefined for a set that was restored from maps. */
export function madeOf(set: RuleSet): MadeOf | undefined {
  return made.get(set);
}

/** What a set was made of, to know without compiling whether it would come out the same. */
const originOf = new WeakMap<RuleSet, readonly NumberedRule[]>();

/**
 * Collects the rule sets of an image; endpoints of which the same is asked share one.
 *
 * A set keeps its id as long as it means the same to every peer that stays. Entries of identities that are new, or that
 * go, change in place: nobody has those numbers yet, or any more, while the change is applied. Where the meaning changes
 * for a peer that stays, the set gets a new id, and each endpoint changes from the one to the other in one step.
 */
export class RuleSets {
  readonly all = new Map<number, RuleSet>();
  readonly #peers: PeerIndex;
  readonly #rules: ReadonlyMap<RuleRef, number>;
  readonly #numbers: Numbers;
  readonly #previous: ReadonlyMap<string, RuleSet>;
  readonly #staying: (identity: IdentityNumber) => boolean;
  readonly #byKey = new Map<string, number>();

  /**
   * @param peers Of the new image.
   * @param identities Of the new image.
   * @param patterns Of the new image.
   * @param rules Numbers by the very objects that the rules and isolations of sides hold.
   */
  constructor(
    peers: PeerIndex,
    identities: PolicyImage['identities'],
    patterns: PolicyImage['patterns'],
    rules: ReadonlyMap<RuleRef, number>,
    previous: PolicyImage | undefined,
  ) {
    this.#peers = peers;
    this.#rules = rules;
    this.#previous = new Map([...(previous?.ruleSets.values() ?? [])].map((set) => [set.key, set]));
    const known = new Map([...this.#previous].map(([key, { id }]) => [key, id]));
    this.#numbers = new Numbers(known, previous?.counters.ruleSet ?? 1, { first: 1, last: 0xffff_ffff });
    this.#staying = (identity) =>
      identity === reservedIdentity.any ||
      (identities.has(identity) && previous?.identities.has(identity) === true) ||
      (patterns.has(identity) && previous?.patterns.has(identity) === true);
  }

  /** @returns The ids of the sets that decide about a DNS question, of which this is asked. */
  forQuestions(side: SubjectSide): StageSets {
    const idOf = (stage: Stage): number => {
      const asked = side[stage];
      return asked === undefined ? noSet : this.#idFor([], 'egress', stage, asked, 'question');
    };
    return { admin: idOf('admin'), network: idOf('network'), mesh: idOf('mesh') };
  }

  get next(): number {
    return this.#numbers.next;
  }

  /** @returns The ids of the sets that decide about the pod's traffic. */
  idsFor(pod: PodView, sides: Readonly<Record<Direction, SubjectSide>>): SetIds {
    const ids: { -readonly [Name in keyof SetIds]: number } = { ...noSets };
    for (const direction of ['ingress', 'egress'] satisfies Direction[])
      for (const stage of stages) {
        const asked = sides[direction][stage];
        const ownPorts = direction === 'ingress' ? pod.namedPorts : [];
        if (asked !== undefined) ids[setNames[direction][stage]] = this.#idFor(ownPorts, direction, stage, asked);
      }
    return ids;
  }

  /** @param of What else tells sets of the same rules apart: of a question, a rule may pass that otherwise denies. */
  #idFor(ownPorts: PodView['namedPorts'], direction: Direction, stage: Stage, asked: StageRules, of = ''): number {
    const key = [
      of,
      direction,
      stage,
      this.#isolationRule(asked.isolation),
      asked.rules.map(({ rule, proxied }) => `${this.#numberOf(rule.ref)}${proxied ? 'p' : ''}`).join(),
      direction === 'ingress' ? namedPortsKey(asked.rules, ownPorts) : '',
    ].join(' ');
    const known = this.#byKey.get(key);
    if (known !== undefined) return known;
    const set = this.#make(key, direction, stage, asked, ownPorts);
    this.#byKey.set(key, set.id);
    this.all.set(set.id, set);
    return set.id;
  }

  #make(
    key: string,
    direction: Direction,
    stage: Stage,
    { rules, isolation }: StageRules,
    ownPorts: PodView['namedPorts'],
  ): RuleSet {
    const asked = rules.map((one) => this.#resolve(one, direction));
    const flags =
      (isolation === undefined ? 0 : ruleSetFlags.isolated) | (isolation?.by === 'policy' ? isolation.flags : 0);
    const old = this.#previous.get(key);
    const changed = changedPeers(old === undefined ? undefined : originOf.get(old), asked);
    if (old?.flags === flags && changed?.size === 0) return old;
    const { rules: numbered, matcher, unread } = withMatcher(asked);
    // A few identities that come or go leave the entries of all others as they are.
    const few =
      changed === undefined || changed.size > 500 || changed.has(reservedIdentity.any) ? undefined : [...changed];
    const entries =
      old === undefined || few === undefined
        ? compileEntries(numbered, ownPorts, this.#peers)
        : patchEntries(old.entries, few, numbered, ownPorts, this.#peers);
    const set: RuleSet = {
      id:
        old !== undefined && sameMatcher(old.matcher, matcher) && this.#meansTheSame(old.entries, entries, few)
          ? old.id
          : this.#numbers.fresh(),
      key,
      direction,
      stage,
      probes: probesOf(entries),
      flags,
      rule: this.#isolationRule(isolation),
      entries,
      ...(matcher === undefined ? {} : { matcher }),
      ...(unread === undefined ? {} : { unread }),
    };
    originOf.set(set, asked);
    made.set(set, { rules: numbered, ownPorts });
    return set;
  }

  #resolve({ rule, flags, http, proxied }: AskedRule, direction: Direction): NumberedRule {
    const identities = this.#peers.identitiesOf(rule);
    const named = direction === 'egress' && rule.ports !== 'any' && rule.ports.some(isNamed);
    const spelt = rule.peers === 'any' ? this.#peers.withNamedPorts : identities;
    const number = this.#numberOf(rule.ref);
    return {
      ...{ rule, flags, number, identities, named: named ? spelt : [] },
      ...(http === undefined ? {} : { http }),
      ...(proxied === undefined ? {} : { proxied }),
    };
  }

  #numberOf(ref: RuleRef): number {
    return this.#rules.get(ref) ?? reservedRules.none;
  }

  #isolationRule(isolation: Isolation | undefined): number {
    if (isolation === undefined) return reservedRules.none;
    return isolation.by === 'default' ? reservedRules.defaultDeny : this.#numberOf(isolation.ref);
  }

  /** @param only Whose entries may differ; undefined: anybody's. */
  #meansTheSame(
    old: readonly PolicyEntry[],
    now: readonly PolicyEntry[],
    only: readonly IdentityNumber[] | undefined,
  ): boolean {
    const staying = (entries: readonly PolicyEntry[]): readonly PolicyEntry[] =>
      only === undefined
        ? entries.filter(({ identity }) => this.#staying(identity))
        : only.filter(this.#staying).flatMap((identity) => entriesOf(entries, identity));
    const after = staying(now);
    const before = staying(old);
    return before.length === after.length && before.every((entry, i) => sameEntry(entry, after[i]));
  }
}

/** Whether two entries are the same in key and value. */
export function sameEntry(a: PolicyEntry, b: PolicyEntry | undefined): boolean {
  return (
    b !== undefined &&
    a.identity === b.identity &&
    a.protocol === b.protocol &&
    a.port === b.port &&
    a.portLength === b.portLength &&
    a.precedence === b.precedence &&
    a.rule === b.rule &&
    a.verdict === b.verdict &&
    a.flags === b.flags &&
    (a.requests === b.requests || a.requests?.join() === b.requests?.join())
  );
}

/** Whether alternatives of the same numbers are the same in all that decides. */
function sameMatcher(a: RuleSetMatcher | undefined, b: RuleSetMatcher | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return (
    sameTables(a.tables, b.tables) &&
    a.alternatives.every((one, i) => {
      const other = b.alternatives[i];
      return (
        one.precedence === other?.precedence &&
        one.rule === other.rule &&
        one.verdict === other.verdict &&
        one.flags === other.flags
      );
    })
  );
}

interface Readable {
  readonly rules: readonly NumberedRule[];
  readonly matcher?: RuleSetMatcher;
  readonly unread?: string;
}

/** The rules with what tells their requests; or, where that is too much for the datapath, as they stand without. */
function withMatcher(rules: readonly NumberedRule[]): Readable {
  const alternatives = rules.flatMap(({ rule, number, flags, http = [] }, rank): Alternative[] => {
    const verdict = rule.verdict === 'allow' ? 'allow' : 'deny';
    return http.map(() => ({ precedence: precedenceOf(rule, rank), rule: number, verdict, flags }));
  });
  if (alternatives.length === 0) return { rules };
  const tables = tablesFor(rules.flatMap(({ http = [] }) => http));
  if (tables.ok) return { rules, matcher: { alternatives, tables: tables.value } };
  const strictly = rules.flatMap(({ http, ...asked }): NumberedRule[] => {
    const rule = http === undefined ? asked.rule : withoutRequests(asked.rule);
    return rule === undefined ? [] : [{ ...asked, rule }];
  });
  return { rules: strictly, unread: tables.reason };
}

/** @returns The identities that are peers of others of the rules now; undefined where the rules are not the same. */
function changedPeers(
  old: readonly NumberedRule[] | undefined,
  now: readonly NumberedRule[],
): Set<IdentityNumber> | undefined {
  if (old?.length !== now.length) return undefined;
  const changed = new Set<IdentityNumber>();
  for (const [i, rule] of now.entries()) {
    const before = old[i];
    if (before?.rule !== rule.rule || before.number !== rule.number || before.flags !== rule.flags) return undefined;
    addDifference(changed, before.identities, rule.identities);
    addDifference(changed, before.named, rule.named);
  }
  return changed;
}

/** Adds what is in one of two sorted lists only. */
function addDifference<T extends number>(into: Set<T>, a: readonly T[], b: readonly T[]): void {
  if (a === b) return;
  for (let [i, j] = [0, 0]; i < a.length || j < b.length; ) {
    const left = a[i];
    const right = b[j];
    if (left !== undefined && left === right) {
      i++;
      j++;
    } else if (left !== undefined && (right === undefined || left < right)) {
      into.add(left);
      i++;
    } else if (right !== undefined) {
      into.add(right);
      j++;
    }
  }
}
