import type { PodView } from '../../model/endpoint.ts';
import { type IdentityNumber, reservedIdentity } from '../../model/identity.ts';
import type { Direction, RuleRef } from '../../model/verdict.ts';
import { type PolicyEntry, type PolicyImage, type RuleSet, reservedRules, ruleSetFlags } from '../image.ts';
import type { Rule } from '../rule.ts';
import { compileEntries, isNamed, type NumberedRule, namedPortsKey, probesOf } from './entries.ts';
import { Numbers } from './numbers.ts';
import type { PeerIndex } from './peers.ts';
import type { SubjectSide } from './subjects.ts';

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
   * @param rules Numbers by the very objects that the rules and isolations of sides hold.
   */
  constructor(
    peers: PeerIndex,
    identities: PolicyImage['identities'],
    rules: ReadonlyMap<RuleRef, number>,
    previous: PolicyImage | undefined,
  ) {
    this.#peers = peers;
    this.#rules = rules;
    this.#previous = new Map([...(previous?.ruleSets.values() ?? [])].map((set) => [set.key, set]));
    const known = new Map([...this.#previous].map(([key, { id }]) => [key, id]));
    this.#numbers = new Numbers(known, previous?.counters.ruleSet ?? 1, { first: 1, last: 0xffff_ffff });
    this.#staying = (identity) =>
      identity === reservedIdentity.any || (identities.has(identity) && previous?.identities.has(identity) === true);
  }

  get next(): number {
    return this.#numbers.next;
  }

  /** @returns The id of the set that decides about the pod's traffic in the direction. */
  idFor(pod: PodView, direction: Direction, side: SubjectSide): number {
    const ownPorts = direction === 'ingress' ? pod.namedPorts : [];
    const key = [
      direction,
      this.#isolationRule(side),
      side.rules.map((rule) => this.#numberOf(rule)).join(),
      direction === 'ingress' ? namedPortsKey(side.rules, ownPorts) : '',
    ].join(' ');
    const known = this.#byKey.get(key);
    if (known !== undefined) return known;
    const set = this.#make(key, direction, side, ownPorts);
    this.#byKey.set(key, set.id);
    this.all.set(set.id, set);
    return set.id;
  }

  #make(key: string, direction: Direction, side: SubjectSide, ownPorts: PodView['namedPorts']): RuleSet {
    const numbered = side.rules.map((rule) => this.#resolve(rule, direction));
    const old = this.#previous.get(key);
    if (old !== undefined && sameOrigin(originOf.get(old), numbered)) return old;
    const entries = compileEntries(numbered, ownPorts, this.#peers);
    const set: RuleSet = {
      id: old !== undefined && this.#meansTheSame(old.entries, entries) ? old.id : this.#numbers.fresh(),
      key,
      direction,
      probes: probesOf(entries),
      flags: side.isolation === undefined ? 0 : ruleSetFlags.isolated,
      rule: this.#isolationRule(side),
      entries,
    };
    originOf.set(set, numbered);
    return set;
  }

  #resolve(rule: Rule, direction: Direction): NumberedRule {
    const identities = this.#peers.identitiesOf(rule);
    const named = direction === 'egress' && rule.ports !== 'any' && rule.ports.some(isNamed);
    const spelt = rule.peers === 'any' ? this.#peers.withNamedPorts : identities;
    return { rule, number: this.#numberOf(rule), identities, named: named ? spelt : [] };
  }

  #numberOf({ ref }: Rule): number {
    return this.#rules.get(ref) ?? reservedRules.none;
  }

  #isolationRule({ isolation }: SubjectSide): number {
    if (isolation === undefined) return reservedRules.none;
    if (isolation.by === 'default') return reservedRules.defaultDeny;
    return this.#rules.get(isolation.ref) ?? reservedRules.none;
  }

  #meansTheSame(old: readonly PolicyEntry[], now: readonly PolicyEntry[]): boolean {
    const before = old.filter(({ identity }) => this.#staying(identity));
    const after = now.filter(({ identity }) => this.#staying(identity));
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
    a.verdict === b.verdict
  );
}

function sameOrigin(old: readonly NumberedRule[] | undefined, now: readonly NumberedRule[]): boolean {
  return (
    old?.length === now.length &&
    now.every((rule, i) => {
      const before = old[i];
      return (
        before?.rule === rule.rule &&
        before.number === rule.number &&
        sameNumbers(before.identities, rule.identities) &&
        sameNumbers(before.named, rule.named)
      );
    })
  );
}

function sameNumbers(a: readonly number[], b: readonly number[]): boolean {
  return a === b || (a.length === b.length && a.every((number, i) => number === b[i]));
}
