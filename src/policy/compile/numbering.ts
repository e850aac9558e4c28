import { firstFreeIdentity, type IdentityNumber, identityNumber, lastIdentity } from '../../model/identity.ts';
import type { RuleRef } from '../../model/verdict.ts';
import { firstFreeRule, type IdentityClass, type PolicyImage, reservedRuleRefs } from '../image.ts';
import { Numbers } from './numbers.ts';

const lastRule = 0xffff_ffff;

/**
 * Numbers for the classes, kept from the previous image where the class was there. `byKey` is keyed by `IdentityClass.key`.
 * @param inhabited Classes of pods and nodes, by key.
 * @param world Classes of addresses that are nobody's.
 */
export function numberIdentities(
  inhabited: ReadonlyMap<string, { readonly class: IdentityClass }>,
  world: readonly IdentityClass[],
  previous: PolicyImage | undefined,
): IdentityNumbers {
  const old = numbersOf(previous);
  const worldByKey = new Map(world.map((made) => [made.key, made]));
  const gone = new Map<string, IdentityNumber>();
  for (const [key, number] of old.byKey) if (!inhabited.has(key) && !worldByKey.has(key)) gone.set(key, number);
  const come: IdentityClass[] = world.filter(({ key }) => !old.byKey.has(key));
  for (const [key, { class: made }] of inhabited) if (!old.byKey.has(key)) come.push(made);
  if (gone.size + come.length === 0) return old;

  const range = { first: firstFreeIdentity, last: lastIdentity };
  const numbers = new Numbers(old.byKey, old.next, range, {
    has: (number) => old.identities.has(identityNumber(number)),
    size: old.identities.size,
  });
  const fresh = numbers.assign(come.map(({ key }) => key));
  const identities = new Map(old.identities);
  const byKey = new Map(old.byKey);
  for (const [key, number] of gone) {
    identities.delete(number);
    byKey.delete(key);
  }
  for (const made of come) {
    const number = identityNumber(fresh.get(made.key) ?? 0);
    identities.set(number, made);
    byKey.set(made.key, number);
  }
  const made = { identities, byKey, next: numbers.next };
  numbered.set(identities, made);
  return made;
}

export interface IdentityNumbers {
  /** The very object of the previous image where nothing changed. */
  readonly identities: ReadonlyMap<IdentityNumber, IdentityClass>;
  readonly byKey: ReadonlyMap<string, IdentityNumber>;
  readonly next: number;
}

/** By the identities of an image. */
const numbered = new WeakMap<PolicyImage['identities'], IdentityNumbers>();

function numbersOf(image: PolicyImage | undefined): IdentityNumbers {
  const next = image?.counters.identity ?? firstFreeIdentity;
  const identities = image?.identities ?? new Map<IdentityNumber, IdentityClass>();
  const known = numbered.get(identities);
  if (known?.next === next) return known;
  return { identities, byKey: new Map([...identities].map(([number, { key }]) => [key, number])), next };
}

/** Numbers for rules, kept from the previous image where the rule was there. `byRef` is by object, not by value. */
export function numberRules(
  refs: Iterable<RuleRef>,
  previous: PolicyImage | undefined,
): { rules: Map<number, RuleRef>; byRef: ReadonlyMap<RuleRef, number>; next: number } {
  const known = new Map([...(previous?.rules ?? [])].map(([number, ref]) => [ruleKey(ref), number]));
  const range = { first: firstFreeRule, last: lastRule };
  const numbers = new Numbers(known, previous?.counters.rule ?? range.first, range);
  const keys = new Map([...refs].map((ref) => [ref, ruleKey(ref)]));
  const byKey = numbers.assign(new Set(keys.values()));
  const rules = new Map(reservedRuleRefs);
  const byRef = new Map<RuleRef, number>();
  for (const [ref, key] of keys) {
    const number = byKey.get(key);
    if (number === undefined) continue;
    byRef.set(ref, number);
    rules.set(number, ref);
  }
  return { rules, byRef, next: numbers.next };
}

/** Kept by object: rules stay the same objects from image to image. */
const ruleKeys = new WeakMap<RuleRef, string>();

function ruleKey(ref: RuleRef): string {
  const known = ruleKeys.get(ref);
  if (known !== undefined) return known;
  const key = `${ref.kind} ${ref.namespace}/${ref.name} ${ref.direction} ${ref.list ?? ''} ${ref.index}`;
  ruleKeys.set(ref, key);
  return key;
}
