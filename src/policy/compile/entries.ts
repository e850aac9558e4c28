import type { NamedPort } from '../../model/endpoint.ts';
import { type IdentityNumber, reservedIdentity } from '../../model/identity.ts';
import { icmpPort, type PortPrefix, portPrefixes, protocolNumbers } from '../../model/port.ts';
import { anyProtocolProbe, type PolicyEntry, reservedRules } from '../image.ts';
import { levels, type PortMatch, type Rule, type TransportMatch } from '../rule.ts';
import type { AskedRule } from './asked.ts';
import { type EntryMatch, entryKey, portBlock } from './keys.ts';
import { includes, indexFrom } from './lists.ts';
import type { PeerIndex } from './peers.ts';

/** A rule with its number and the identities of its peers. */
export interface NumberedRule extends AskedRule {
  readonly number: number;
  readonly identities: readonly IdentityNumber[];
  /** Egress: whose named ports the rule's port names stand for; `any` is spelt out. Ingress: nobody's but the endpoint's own. */
  readonly named: readonly IdentityNumber[];
}

interface Block extends PortPrefix {
  readonly protocol: number;
}

const everything: Block = { protocol: 0, port: 0, length: 0 };
/** Ranks of rules within a set, below the level's four bits. */
const ranks = 1 << 28;

/**
 * The entries of one rule set. An entry's precedence is its rule's level and, below that, the rule's rank in the set, so
 * the highest entry that matches is the first rule that matches: the one that the reference decision names.
 * @param rules In the order in which they decide.
 * @param ownPorts Ingress: the named ports of the endpoint. Egress: none, every destination has its own.
 */
export function compileEntries(
  rules: readonly NumberedRule[],
  ownPorts: readonly NamedPort[],
  peers: PeerIndex,
): PolicyEntry[] {
  const entries = new Map<number, PolicyEntry>();
  const asked = new AskedRequests();
  for (const [rank, { rule, flags, number, identities, named, http, proxied }] of rules.entries()) {
    const verdict = passes(rule) ? 'pass' : rule.verdict === 'allow' ? 'allow' : 'deny';
    const precedence = precedenceOf(rule, rank);
    if (http !== undefined) asked.begin(http.length, precedence);
    const set = (match: EntryMatch, said: Pick<PolicyEntry, 'verdict' | 'precedence'>): void => {
      const key = entryKey(match);
      if (!entries.has(key)) entries.set(key, { ...match, ...said, rule: number, flags });
    };
    const add = (identity: IdentityNumber, { protocol, port, length }: Block): void => {
      const match = { identity, protocol, port, portLength: length };
      const tcp = protocol === protocolNumbers.TCP;
      if (http !== undefined && (tcp || protocol === 0)) asked.add(entryKey(match), match);
      else if (http === undefined && !proxied) set(match, { verdict, precedence });
      else {
        if (tcp || protocol === 0)
          set({ ...match, protocol: protocolNumbers.TCP }, { verdict: 'proxy', precedence: precedence + 1 });
        // Requests are read on TCP only: what a rule allows by them of anything else is nothing, and it denies all of it.
        if (!tcp && verdict !== 'allow') set(match, { verdict: 'deny', precedence });
      }
    };
    const ports = rule.ports === 'any' ? [] : rule.ports;
    const blocks = rule.ports === 'any' ? [everything] : ports.flatMap((match) => blocksOf(match, ownPorts));
    for (const identity of identities) for (const block of blocks) add(identity, block);
    const names = ports.filter(isNamed);
    for (const identity of named)
      for (const match of names)
        for (const block of blocksOf(match, peers.namedPortsOf(identity))) add(identity, block);
  }
  return asked.among(withoutShadowed(entries), entries);
}

/**
 * The order in which rules decide, as entries and alternatives have it. What is one higher is the rule's too: for TCP, where
 * it stands beside what it says of every protocol.
 * @param rank Of the rule in its set.
 */
export function precedenceOf({ level }: Rule, rank: number): number {
  // Not by shifting: the top bit would make the number negative.
  return levels[level] * ranks + (ranks - 2 - 2 * rank);
}

/**
 * The entries of a set whose rules are as they were, but for some identities that are peers of others of them now.
 * @param old The set's entries before.
 * @param changed Those identities; not `any`.
 */
export function patchEntries(
  old: readonly PolicyEntry[],
  changed: readonly IdentityNumber[],
  rules: readonly NumberedRule[],
  ownPorts: readonly NamedPort[],
  peers: PeerIndex,
): PolicyEntry[] {
  const touched = [...changed].sort((a, b) => a - b);
  // What is about everybody may decide in place of what is about one.
  const left = (sorted: readonly IdentityNumber[]): readonly IdentityNumber[] =>
    sorted[0] === reservedIdentity.any ? sorted : touched.filter((identity) => includes(sorted, identity));
  const some = rules.map((rule) => ({ ...rule, identities: left(rule.identities), named: left(rule.named) }));
  const fresh = compileEntries(some, ownPorts, peers);
  // Keys begin with the identity: what is between two of those that changed stays as it is, in one piece.
  const pieces: (readonly PolicyEntry[])[] = [];
  let at = 0;
  for (const identity of touched) {
    const [from, to] = rangeOf(old, identity);
    pieces.push(old.slice(at, from), entriesOf(fresh, identity));
    at = to;
  }
  pieces.push(old.slice(at));
  return ([] as PolicyEntry[]).concat(...pieces);
}

/** @param entries In the order of their keys. */
export function entriesOf(entries: readonly PolicyEntry[], identity: IdentityNumber): readonly PolicyEntry[] {
  return entries.slice(...rangeOf(entries, identity));
}

function rangeOf(entries: readonly PolicyEntry[], identity: IdentityNumber): [number, number] {
  const from = (wanted: number): number => indexFrom(entries, wanted, (entry) => entry.identity);
  return [from(identity), from(identity + 1)];
}

/** Where there is no level to pass over, a pass is not understood, and denies. */
function passes({ verdict, level }: Rule): boolean {
  return verdict === 'pass' && (level === 'admin' || level === 'baseline');
}

/** `RuleSet.probes`. */
export function probesOf(entries: readonly PolicyEntry[]): number {
  let probes = 0;
  entries.forEach(({ protocol, portLength }) => {
    probes |= protocol === 0 ? anyProtocolProbe : 1 << portLength;
  });
  return probes;
}

/** What the named ports of the rules come to for an endpoint, as text: it tells rule sets of the same rules apart. */
export function namedPortsKey(rules: readonly AskedRule[], ownPorts: readonly NamedPort[]): string {
  const matches = rules.flatMap(({ rule: { ports } }) => (ports === 'any' ? [] : ports));
  const named = matches.filter(isNamed).map(({ port, protocol }) => `${port.name}/${protocol}`);
  return [...new Set(named)]
    .sort()
    .map((name) => {
      const ports = ownPorts.filter((own) => `${own.name}/${own.protocol}` === name).map(({ port }) => port);
      return `${name}=${ports.sort((a, b) => a - b).join('+')}`;
    })
    .join();
}

/** Whether a port is given by a name, which each destination resolves for itself. */
export function isNamed(match: PortMatch): match is TransportMatch & { readonly port: { readonly name: string } } {
  return 'port' in match && 'name' in match.port;
}

function blocksOf(match: PortMatch, namedPorts: readonly NamedPort[]): Block[] {
  const protocol = protocolNumbers[match.protocol];
  if (!('port' in match)) {
    if (match.type === undefined) return [{ protocol, port: 0, length: 0 }];
    return [{ protocol, port: icmpPort(match.type, match.code), length: match.code === undefined ? 8 : 16 }];
  }
  const { port } = match;
  if ('from' in port) return portPrefixes(port).map((prefix) => ({ ...prefix, protocol }));
  return namedPorts
    .filter((named) => named.name === port.name && named.protocol === match.protocol)
    .map((named) => ({ protocol, port: named.port, length: 16 }));
}

/**
 * Leaves out what can never decide: an entry beside which a broader one of the same or a higher precedence always matches.
 * (The same precedence is the same rule, so neither verdict nor attribution changes.)
 */
function withoutShadowed(entries: ReadonlyMap<number, PolicyEntry>): PolicyEntry[] {
  if (entries.size === 0) return [];
  const broader = broaderIn(entries);
  const kept = [...entries.values()].filter(
    (entry) => !broader(entry, (other) => other.precedence >= entry.precedence),
  );
  return kept.sort((a, b) => entryKey(a) - entryKey(b));
}

/** @returns Whether one of the entries that match all that an entry would match, but at another key, is as asked. */
function broaderIn(
  entries: ReadonlyMap<number, PolicyEntry>,
): (than: EntryMatch, is: (entry: PolicyEntry) => boolean) => boolean {
  const probes = probesOf([...entries.values()]);
  const lengths = Array.from({ length: 17 }, (_, length) => length).filter((length) => probes & (1 << length));
  return (than, is) => {
    const own = entryKey(than);
    const found = (identity: IdentityNumber, protocol: number, portLength: number): boolean => {
      const key = entryKey({ identity, protocol, port: portBlock(than.port, portLength), portLength });
      const entry = key === own ? undefined : entries.get(key);
      return entry !== undefined && is(entry);
    };
    const identities = than.identity === reservedIdentity.any ? [than.identity] : [than.identity, reservedIdentity.any];
    return identities.some(
      (identity) =>
        (probes & anyProtocolProbe && found(identity, 0, 0)) ||
        (than.protocol !== 0 &&
          lengths.some((length) => length <= than.portLength && found(identity, than.protocol, length))),
    );
  };
}

interface Standing {
  readonly match: EntryMatch;
  readonly numbers: number[];
}

/** Which alternatives stand at which key: rules that ask something of requests, in the order in which they decide. */
class AskedRequests {
  readonly #byKey = new Map<number, Standing>();
  readonly #precedence: number[] = [];
  /** Equal lists are one object: there are many keys, and few lists. */
  readonly #lists = new Map<string, readonly number[]>();
  #first = 0;

  /** The next rule's. */
  begin(count: number, precedence: number): void {
    this.#first = this.#precedence.length;
    for (let n = 0; n < count; n++) this.#precedence.push(precedence);
  }

  /** The rule stands at this key too. */
  add(key: number, match: EntryMatch): void {
    const standing = this.#byKey.get(key) ?? { match, numbers: [] };
    this.#byKey.set(key, standing);
    if ((standing.numbers.at(-1) ?? -1) >= this.#first) return;
    for (let number = this.#first; number < this.#precedence.length; number++) standing.numbers.push(number);
  }

  /** The entries with what stands at their keys, without what can never decide. @param all Of `entries`, those left out too. */
  among(entries: PolicyEntry[], all: ReadonlyMap<number, PolicyEntry>): PolicyEntry[] {
    if (this.#byKey.size === 0) return entries;
    const broader = broaderIn(all);
    const found = new Map(entries.map((entry) => [entryKey(entry), entry]));
    for (const [key, { match, numbers }] of this.#byKey) {
      const own = all.get(key);
      const left = numbers.filter((number) => {
        const precedence = this.#precedence[number] ?? 0;
        const above = (entry: PolicyEntry): boolean => entry.precedence >= precedence;
        return !(own !== undefined && above(own)) && !broader(match, above);
      });
      if (left.length === 0) continue;
      const requests = this.#lists.get(left.join()) ?? left;
      this.#lists.set(left.join(), requests);
      const none = { ...match, precedence: 0, rule: reservedRules.none, verdict: 'none', flags: 0 } as const;
      found.set(key, { ...(found.get(key) ?? none), requests });
    }
    return [...found.values()].sort((a, b) => entryKey(a) - entryKey(b));
  }
}
