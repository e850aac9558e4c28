import type { IpAddress } from '../model/address.ts';
import { firstFreeIdentity, type IdentityNumber } from '../model/identity.ts';
import { type Prefix, prefixParts } from '../model/prefix.ts';
import { differences } from '../model/versions.ts';
import { entryKey } from './compile/keys.ts';
import { sameEntry } from './compile/sets.ts';
import {
  type EndpointEntry,
  type PeerEntry,
  type PolicyEntry,
  type PolicyImage,
  type PrefixEntry,
  type RuleSet,
  type SetIds,
  setIdOf,
  stages,
} from './image.ts';
import type { NameMatcher } from './names/matcher.ts';

/** The value of the map `rule_sets`. */
export type RuleSetHead = Pick<RuleSet, 'id' | 'probes' | 'flags' | 'rule'>;

/** One step for the datapath. A `put` of what is there replaces it. Entries are grouped by set, to be written in batches. */
export type PolicyOperation =
  | { readonly kind: 'put-entries' | 'delete-entries'; readonly set: number; readonly entries: readonly PolicyEntry[] }
  | { readonly kind: 'put-rule-set'; readonly set: RuleSetHead }
  | { readonly kind: 'delete-rule-set'; readonly set: number }
  | { readonly kind: 'put-pattern'; readonly number: IdentityNumber; readonly pattern: string }
  | { readonly kind: 'delete-pattern'; readonly number: IdentityNumber }
  | { readonly kind: 'put-matcher'; readonly matcher: NameMatcher }
  | { readonly kind: 'delete-matcher'; readonly matcher: NameMatcher }
  | { readonly kind: 'put-endpoint'; readonly uid: string; readonly endpoint: EndpointEntry }
  | { readonly kind: 'delete-endpoint'; readonly uid: string }
  | { readonly kind: 'put-peer'; readonly address: IpAddress; readonly peer: PeerEntry }
  | { readonly kind: 'delete-peer'; readonly address: IpAddress }
  | { readonly kind: 'put-prefix'; readonly prefix: Prefix; readonly entry: PrefixEntry }
  | { readonly kind: 'delete-prefix'; readonly prefix: Prefix };

/**
 * The steps from one image to the next, in an order in which no step opens what neither image allows:
 *
 * 1. entries, then rule sets: nothing refers to the new ones yet, and what is new in a set that stays is about identities
 *    that nobody has yet; then patterns of names, and the matchers that teach them and refer to rule sets;
 * 2. addresses that get an identity which is new: old rule sets know nothing of it;
 * 3. endpoints, each from its old rule sets to its new ones in one step;
 * 4. addresses that get an identity which others had before, or lose theirs: only rule sets that were compiled with the
 *    new meaning of that identity are left;
 * 5. matchers, rule sets, entries and patterns that nothing refers to any more.
 *
 * Where a step of 1 fails, undoing the steps done leaves the old image in force.
 */
export function diff(old: PolicyImage | undefined, next: PolicyImage): PolicyOperation[] {
  const sets = diffSets(old?.ruleSets ?? new Map(), next.ruleSets);
  const places = diffPlaces(old, next);
  const names = diffNames(old, next);
  return [
    ...sets.adds,
    ...names.adds,
    ...places.early,
    ...diffEndpoints(old, next),
    ...places.late,
    ...names.matcherRemovals,
    ...sets.removals,
    ...names.patternRemovals,
  ];
}

/** Matchers never change under their id. */
function diffNames(
  old: PolicyImage | undefined,
  next: PolicyImage,
): Readonly<Record<'adds' | 'matcherRemovals' | 'patternRemovals', PolicyOperation[]>> {
  const adds: PolicyOperation[] = [];
  const matcherRemovals: PolicyOperation[] = [];
  const patternRemovals: PolicyOperation[] = [];
  for (const [number, pattern] of next.patterns)
    if (old?.patterns.get(number) !== pattern) adds.push({ kind: 'put-pattern', number, pattern });
  for (const [id, matcher] of next.matchers) if (!old?.matchers.has(id)) adds.push({ kind: 'put-matcher', matcher });
  for (const [id, matcher] of old?.matchers ?? [])
    if (!next.matchers.has(id)) matcherRemovals.push({ kind: 'delete-matcher', matcher });
  for (const number of old?.patterns.keys() ?? [])
    if (!next.patterns.has(number)) patternRemovals.push({ kind: 'delete-pattern', number });
  return { adds, matcherRemovals, patternRemovals };
}

function diffSets(
  old: ReadonlyMap<number, RuleSet>,
  next: ReadonlyMap<number, RuleSet>,
): { adds: PolicyOperation[]; removals: PolicyOperation[] } {
  const entryAdds: PolicyOperation[] = [];
  const setAdds: PolicyOperation[] = [];
  const setRemovals: PolicyOperation[] = [];
  const entryRemovals: PolicyOperation[] = [];
  for (const set of next.values()) {
    const before = old.get(set.id);
    if (before === set) continue;
    const { added, removed } = diffEntries(before?.entries ?? [], set.entries);
    if (added.length > 0) entryAdds.push({ kind: 'put-entries', set: set.id, entries: added });
    if (removed.length > 0) entryRemovals.push({ kind: 'delete-entries', set: set.id, entries: removed });
    // While entries of both images are there, both are probed for.
    const meanwhile = { ...head(set), probes: set.probes | (before?.probes ?? 0) };
    if (before === undefined || !sameHead(before, meanwhile)) setAdds.push({ kind: 'put-rule-set', set: meanwhile });
    if (!sameHead(meanwhile, set)) setRemovals.push({ kind: 'put-rule-set', set: head(set) });
  }
  for (const [id, { entries }] of old) {
    if (next.has(id)) continue;
    setRemovals.push({ kind: 'delete-rule-set', set: id });
    if (entries.length > 0) entryRemovals.push({ kind: 'delete-entries', set: id, entries });
  }
  return { adds: [...entryAdds, ...setAdds], removals: [...setRemovals, ...entryRemovals] };
}

/** `removed` leaves out entries whose key stays: a put has replaced them. */
function diffEntries(
  old: readonly PolicyEntry[],
  next: readonly PolicyEntry[],
): { added: readonly PolicyEntry[]; removed: readonly PolicyEntry[] } {
  if (old.length === 0) return { added: next, removed: [] };
  // Both are in the order of their keys; entries that stay are mostly the same objects.
  const added: PolicyEntry[] = [];
  const removed: PolicyEntry[] = [];
  let at = 0;
  for (const entry of next) {
    if (entry === old[at]) {
      at++;
      continue;
    }
    const key = entryKey(entry);
    let before = old[at];
    for (; before !== undefined && entryKey(before) < key; before = old[++at]) removed.push(before);
    const replaces = before !== undefined && entryKey(before) === key;
    if (!replaces || !sameEntry(entry, before)) added.push(entry);
    if (replaces) at++;
  }
  return { added, removed: [...removed, ...old.slice(at)] };
}

/** Peers and prefixes: those that may be placed before the endpoints change their sets, and those that must come after. */
function diffPlaces(
  old: PolicyImage | undefined,
  next: PolicyImage,
): { early: PolicyOperation[]; late: PolicyOperation[] } {
  const early: PolicyOperation[] = [];
  const late: PolicyOperation[] = [];
  const phase = ({ identity }: PeerEntry | PrefixEntry): PolicyOperation[] =>
    identity >= firstFreeIdentity && old?.identities.has(identity) === true ? late : early;

  // The longest first, so that no address falls into a prefix that is about to be cut out again.
  for (const [prefix, entry] of [...next.prefixes].sort(([a], [b]) => mapLength(b) - mapLength(a)))
    if (!samePlace(old?.prefixes.get(prefix), entry)) phase(entry).push({ kind: 'put-prefix', prefix, entry });
  const deletions: PolicyOperation[] = [];
  for (const address of differences(old?.peers ?? new Map(), next.peers)) {
    const before = old?.peers.get(address);
    const peer = next.peers.get(address);
    if (peer === undefined) {
      if (before !== undefined) deletions.push({ kind: 'delete-peer', address });
    } else if (!samePlace(before, peer) || before?.owner !== peer.owner)
      phase(peer).push({ kind: 'put-peer', address, peer });
  }
  late.push(...deletions);
  const gone = [...(old?.prefixes.keys() ?? [])].filter((prefix) => !next.prefixes.has(prefix));
  for (const prefix of gone.sort((a, b) => mapLength(a) - mapLength(b))) late.push({ kind: 'delete-prefix', prefix });
  return { early, late };
}

function diffEndpoints(old: PolicyImage | undefined, next: PolicyImage): PolicyOperation[] {
  const operations: PolicyOperation[] = [];
  for (const [uid, endpoint] of next.endpoints)
    if (!sameEndpoint(old?.endpoints.get(uid), endpoint)) operations.push({ kind: 'put-endpoint', uid, endpoint });
  for (const uid of old?.endpoints.keys() ?? [])
    if (!next.endpoints.has(uid)) operations.push({ kind: 'delete-endpoint', uid });
  return operations;
}

/** Of the 128 bits in which IPv4 is ::ffff:0:0/96. */
function mapLength(prefix: Prefix): number {
  const { length, family } = prefixParts(prefix);
  return family === 4 ? length + 96 : length;
}

function head({ id, probes, flags, rule }: RuleSetHead): RuleSetHead {
  return { id, probes, flags, rule };
}

function sameHead(a: RuleSetHead, b: RuleSetHead): boolean {
  return a.probes === b.probes && a.flags === b.flags && a.rule === b.rule;
}

function samePlace(a: PeerEntry | PrefixEntry | undefined, b: PeerEntry | PrefixEntry): boolean {
  return a?.identity === b.identity && a.kind === b.kind;
}

const directions = ['ingress', 'egress'] as const;

function sameSets(a: SetIds, b: SetIds): boolean {
  return directions.every((direction) =>
    stages.every((stage) => setIdOf(a, direction, stage) === setIdOf(b, direction, stage)),
  );
}

function sameEndpoint(a: EndpointEntry | undefined, b: EndpointEntry): boolean {
  return (
    a?.identity4 === b.identity4 &&
    a.identity6 === b.identity6 &&
    a.names === b.names &&
    sameSets(a, b) &&
    (a.audit === undefined) === (b.audit === undefined) &&
    sameSets(a.audit ?? a, b.audit ?? b) &&
    a.addresses.join() === b.addresses.join()
  );
}
