import type { IdentityNumber } from '../model/identity.ts';
import { differences } from '../model/versions.ts';
import type { Alternative } from '../policy/http/readable.ts';
import type { PolicyEntry, PolicyImage } from '../policy/image.ts';

/** Entries to be added to one rule set of the old image for as long as endpoints still use it. */
export interface Bridge {
  readonly set: number;
  readonly entries: readonly PolicyEntry[];
}

/**
 * While a revision is applied, addresses get identities that the old rule sets do not know, before endpoints change from
 * those sets to the new ones. So that the old sets go on treating such an address as they did, they get copies of the
 * entries for the identity that it had. After a restart this is every address, and traffic must not notice.
 *
 * Where the addresses of one new identity had several old ones (or none), the copies allow only what each of those was
 * allowed, and deny what any of them was denied: a bridge never opens anything.
 */
export function bridgesBetween(old: PolicyImage, next: PolicyImage): Bridge[] {
  const origins = originsOf(old, next);
  if (origins.size === 0) return [];
  const bridges: Bridge[] = [];
  for (const set of old.ruleSets.values()) {
    // A set that stays has entries for the new identities already.
    if (next.ruleSets.has(set.id) || set.entries.length === 0) continue;
    const byIdentity = Map.groupBy(set.entries, ({ identity }) => identity);
    const entries = [...origins].flatMap(([identity, from]) =>
      merge(
        [...from].map((origin) => (origin === undefined ? [] : (byIdentity.get(origin) ?? []))),
        set.matcher?.alternatives ?? [],
      ).map((entry) => ({
        ...entry,
        identity,
      })),
    );
    if (entries.length > 0) bridges.push({ set: set.id, entries });
  }
  return bridges;
}

/** For each identity that only the new image has: which identities its addresses had; undefined for an address that had none. */
function originsOf(old: PolicyImage, next: PolicyImage): Map<IdentityNumber, Set<IdentityNumber | undefined>> {
  const origins = new Map<IdentityNumber, Set<IdentityNumber | undefined>>();
  const note = (identity: IdentityNumber, before: IdentityNumber | undefined) => {
    if (!next.identities.has(identity) || old.identities.has(identity)) return;
    const known = origins.get(identity);
    if (known === undefined) origins.set(identity, new Set([before]));
    else known.add(before);
  };
  for (const address of differences(old.peers, next.peers)) {
    const now = next.peers.get(address);
    if (now !== undefined) note(now.identity, old.peers.get(address)?.identity);
  }
  for (const [prefix, { identity }] of next.prefixes) note(identity, old.prefixes.get(prefix)?.identity);
  return origins;
}

/** @param lists The entries of each origin, all for the same key but for the identity. */
function merge(
  lists: readonly (readonly PolicyEntry[])[],
  alternatives: readonly Pick<Alternative, 'verdict'>[],
): PolicyEntry[] {
  const merged: PolicyEntry[] = [];
  for (const same of Map.groupBy(lists.flat(), keyOf).values()) {
    const [first] = same;
    if (first === undefined) continue;
    const own = same.filter(({ verdict }) => verdict !== 'none');
    const none = { ...first, precedence: 0, rule: 0, verdict: 'none', flags: 0 } as const;
    const { requests: _, ...plain } = mergePlain(own, lists.length) ?? none;
    const requests = mergeRequests(same, lists.length, alternatives);
    if (requests.length > 0) merged.push({ ...plain, requests });
    else if (plain.verdict !== 'none') merged.push(plain);
  }
  return merged;
}

function mergePlain(same: readonly PolicyEntry[], origins: number): PolicyEntry | undefined {
  const passed = same.some(({ verdict }) => verdict === 'pass') ? mergePassed(same, origins) : undefined;
  if (passed !== undefined) return passed;
  const denies = same.filter(({ verdict }) => verdict === 'deny');
  // The proxy judges by who it is now, whatever is allowed below; so of one it may judge all of them.
  const proxied = same.filter(({ verdict }) => verdict === 'proxy');
  if (denies.length === 0 && proxied.length > 0) return proxied.reduce((a, b) => (b.precedence > a.precedence ? b : a));
  // Denied if any is denied, as surely as the surest; allowed only if all are, as weakly as the weakest.
  const candidates = denies.length > 0 ? denies : same.length === origins ? same : [];
  const [first, ...others] = candidates;
  const stronger = (a: PolicyEntry, b: PolicyEntry) =>
    a.verdict === 'deny' ? a.precedence >= b.precedence : a.precedence <= b.precedence;
  return first === undefined
    ? undefined
    : others.reduce((chosen, entry) => (stronger(chosen, entry) ? chosen : entry), first);
}

/** What denies any of the origins some requests, and what allows them to each of the origins. */
function mergeRequests(
  same: readonly PolicyEntry[],
  origins: number,
  alternatives: readonly Pick<Alternative, 'verdict'>[],
): number[] {
  const lists = same.map(({ requests = [] }) => requests);
  const all = [...new Set(lists.flat())].sort((a, b) => a - b);
  return all.filter(
    (number) =>
      alternatives[number]?.verdict === 'deny' ||
      (lists.length === origins && lists.every((list) => list.includes(number))),
  );
}

/**
 * What one origin is passed on with is the same for all of them, or it is denied: what the next rule set says of each
 * cannot be told from here.
 */
function mergePassed(same: readonly PolicyEntry[], origins: number): PolicyEntry | undefined {
  const [first, ...others] = same;
  if (first === undefined) return undefined;
  const alike = ({ verdict, precedence }: PolicyEntry) => verdict === 'pass' && precedence === first.precedence;
  if (same.length === origins && same.every(alike)) return first;
  const surest = others.reduce((a, b) => (b.precedence > a.precedence ? b : a), first);
  return { ...surest, verdict: 'deny' };
}

function keyOf({ protocol, port, portLength }: PolicyEntry): number {
  return (protocol << 21) | (port << 5) | portLength;
}
