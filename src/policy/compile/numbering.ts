import { firstFreeIdentity, type IdentityNumber, identityNumber, lastIdentity } from '../../model/identity.ts';
import type { RuleRef } from '../../model/verdict.ts';
import { changed, differences } from '../../model/versions.ts';
import { firstFreeRule, type IdentityClass, type PolicyImage, reservedRuleRefs } from '../image.ts';
import { Numbers } from './numbers.ts';

const lastRule = 0xffff_ffff;

/**
 * Numbers for the classes, kept from the previous image where the class was there. `byKey` is keyed by `IdentityClass.key`.
 * @param inhabited Classes of pods and nodes, by key; only those that differ from the previous image's are looked at.
 * @param world Classes of addresses that are nobody's.
 */
export function numberIdentities(
  inhabited: ReadonlyMap<string, IdentityClass>,
  world: readonly IdentityClass[],
  previous: PolicyImage | undefined,
): IdentityNumbers {
  const old = numbersOf(previous);
  const worldByKey = new Map(world.map((made) => [made.key, made]));
  const gone = new Map<string, IdentityNumber>();
  const come: IdentityClass[] = [];
  const compare = (key: string, now: IdentityClass | undefined): void => {
    const number = old.byKey.get(key);
    if (now === undefined && number !== undefined) gone.set(key, number);
    if (now !== undefined && number === undefined) come.push(now);
  };
  for (const key of differences(old.inhabited, inhabited)) compare(key, inhabited.get(key));
  for (const key of differences(old.world, worldByKey)) compare(key, worldByKey.get(key));
  if (gone.size + come.length === 0) return noted({ ...old, inhabited, world: worldByKey });

  const range = { first: firstFreeIdentity, last: lastIdentity };
  const numbers = new Numbers(old.byKey, old.next, range, {
    has: (number) => old.identities.has(identityNumber(number)),
    size: old.identities.size,
  });
  const fresh = numbers.assign(come.map(({ key }) => key));
  const classChanges = new Map<IdentityNumber, IdentityClass | undefined>();
  const numberChanges = new Map<string, IdentityNumber | undefined>();
  for (const [key, number] of gone) {
    classChanges.set(number, undefined);
    numberChanges.set(key, undefined);
  }
  for (const made of come) {
    const number = identityNumber(fresh.get(made.key) ?? 0);
    classChanges.set(number, made);
    numberChanges.set(made.key, number);
  }
  const identities = changed(old.identities, classChanges);
  const byKey = changed(old.byKey, numberChanges);
  return noted({ identities, byKey, next: numbers.next, inhabited, world: worldByKey });
}

export interface IdentityNumbers {
  /** The very object of the previous image where nothing changed; else made from it by `changed`. */
  readonly identities: ReadonlyMap<IdentityNumber, IdentityClass>;
  readonly byKey: ReadonlyMap<string, IdentityNumber>;
  readonly next: number;
}

/** With the classes that they were given to. */
interface Noted extends IdentityNumbers {
  readonly inhabited: ReadonlyMap<string, IdentityClass>;
  readonly world: ReadonlyMap<string, IdentityClass>;
}

/** By the identities of an image. */
const numbered = new WeakMap<PolicyImage['identities'], Noted>();

function noted(numbers: Noted): Noted {
  numbered.set(numbers.identities, numbers);
  return numbers;
}

function numbersOf(image: PolicyImage | undefined): Noted {
  const next = image?.counters.identity ?? firstFreeIdentity;
  const identities = image?.identities ?? new Map<IdentityNumber, IdentityClass>();
  const known = numbered.get(identities);
  if (known?.next === next) return known;
  const classes = [...identities.values()];
  const byClass = (world: boolean): Map<string, IdentityClass> =>
    new Map(classes.filter(({ kind }) => (kind === 'world') === world).map((made) => [made.key, made]));
  const byKey = new Map([...identities].map(([number, { key }]) => [key, number]));
  return { identities, byKey, next, inhabited: byClass(false), world: byClass(true) };
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
