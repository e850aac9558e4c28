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
  for (const [key, number] of numbers.assign(byClassKey.keys())) {
    const identity = identityNumber(number);
    const made = byClassKey.get(key);
    byKey.set(key, identity);
    if (made !== undefined) identities.set(identity, made);
  }
  return { identities, byKey, next: numbers.next };
}

/** Numbers for rules, kept from the previous image where the rule was there. `byKey` is keyed by `ruleKey`. */
export function numberRules(
  refs: Iterable<RuleRef>,
  previous: PolicyImage | undefined,
): { rules: Map<number, RuleRef>; byKey: ReadonlyMap<string, number>; next: number } {
  const known = new Map([...(previous?.rules ?? [])].map(([number, ref]) => [ruleKey(ref), number]));
  const range = { first: firstFreeRule, last: lastRule };
  const numbers = new Numbers(known, previous?.counters.rule ?? range.first, range);
  const byRefKey = new Map([...refs].map((ref) => [ruleKey(ref), ref]));
  const byKey = numbers.assign(byRefKey.keys());
  const rules = new Map(reservedRuleRefs);
  for (const [key, ref] of byRefKey) {
    const number = byKey.get(key);
    if (number !== undefined) rules.set(number, ref);
  }
  return { rules, byKey, next: numbers.next };
}

export function ruleKey({ kind, namespace, name, direction, index }: RuleRef): string {
  return `${kind} ${namespace}/${name} ${direction} ${index}`;
}
