import { differences } from '../../model/versions.ts';
import type { PolicyOperation } from '../../policy/diff.ts';
import type { PolicyEntry, PolicyImage, RuleSet } from '../../policy/image.ts';
import type { NameMatcher } from '../../policy/names/matcher.ts';
import type { NameMaps } from '../names.ts';
import type { DatapathMaps } from '../objects.ts';

/** How many entries a table would have at its fullest, while what was and what will be are both there. */
export interface TableNeed {
  readonly table: { readonly name: string; readonly capacity: number };
  readonly entries: number;
}

/** @returns What a change of policy needs of the tables but for the entries of rule sets. */
export function tableNeeds(
  maps: NameMaps & Pick<DatapathMaps, 'peers' | 'prefixes' | 'ruleSets'>,
  old: PolicyImage,
  next: PolicyImage,
): TableNeed[] {
  const { ruleSets, peers, prefixes, namePatterns, nameMatchers, nameStates, nameAccepts } = maps;
  const matchers = [...new Map([...old.matchers, ...next.matchers]).values()];
  const sum = (of: (matcher: NameMatcher) => number) => matchers.reduce((all, matcher) => all + of(matcher), 0);
  return [
    { table: ruleSets, entries: added(old.ruleSets, next.ruleSets) },
    { table: peers, entries: added(old.peers, next.peers) },
    { table: prefixes, entries: added(old.prefixes, next.prefixes) },
    { table: namePatterns, entries: added(old.patterns, next.patterns) },
    { table: nameMatchers, entries: matchers.length },
    { table: nameStates, entries: sum(({ states }) => states.length) },
    { table: nameAccepts, entries: sum(({ accepts }) => accepts.length) },
  ];
}

/** How many keys a map has that has those of both. */
function added<K extends string | number>(old: ReadonlyMap<K, unknown>, next: ReadonlyMap<K, unknown>): number {
  let count = old.size;
  for (const key of differences(old, next)) if (!old.has(key)) count++;
  return count;
}

/** @returns How many entries the rule sets have together while they change. */
export function entriesAtMost(old: PolicyImage, changes: readonly PolicyOperation[]): number {
  let count = 0;
  for (const { entries } of old.ruleSets.values()) count += entries.length;
  for (const operation of changes) {
    if (operation.kind !== 'put-entries') continue;
    const known = old.ruleSets.get(operation.set);
    count += known === undefined ? operation.entries.length : newEntries(known, operation.entries);
  }
  return count;
}

function newEntries(known: RuleSet, entries: readonly PolicyEntry[]): number {
  const keys = new Set(known.entries.map(keyText));
  return entries.filter((entry) => !keys.has(keyText(entry))).length;
}

function keyText({ identity, protocol, port, portLength }: PolicyEntry): string {
  return `${identity} ${protocol} ${port} ${portLength}`;
}
