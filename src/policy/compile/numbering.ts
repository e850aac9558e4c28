import { firstFreeIdentity, type IdentityNumber, identityNumber, lastIdentity } from '../../model/identity.ts';
import type { RuleRef } from '../../model/verdict.ts';
import { firstFreeRule, type IdentityClass, type PolicyImage, reservedRuleRefs } from '../image.ts';
import { Numbers } from './numbers.ts';

const lastRule = 0xffff_ffff;

/** Numbers for the classes, kept from the previous image where the class was there. `byKey` is keyed by `IdentityClass.key`. */
export function numberIdentities(
  classes: Iterable<IdentityClass>,
  previous: PolicyImage | undefined,
): { identities: Map<IdentityNumber, IdentityClass>; byKey: Map<string, IdentityNumber>; next: number } {
  const known = new Map([...(previous?.identities ?? [])].map(([number, { key }]) => [key, number]));
  const range = { first: firstFreeIdentity, last: lastIdentity };
  const numbers = new Numbers(known, previous?.counters.identity ?? range.first, range);
  const byClassKey = new Map([...classes].map((made) => [made.key, made]));
  const identities = new Map<IdentityNumber, IdentityClass>();
  const byKey = new Map<string, IdentityNumber>();
  for (const [key, number] of [...numbers.assign(byClassKey.keys())].sort(([, a], [, b]) => a - b)) {
    const identity = identityNumber(number);
    const made = byClassKey.get(key);
    byKey.set(key, identity);
    if (made !== undefined) identities.set(identity, made);
  }
  return { identities, byKey, next: numbers.next };
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
