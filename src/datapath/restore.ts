import type { IpAddress } from '../model/address.ts';
import {
  firstFreeIdentity,
  firstNameIdentity,
  type IdentityNumber,
  identityNumber,
  lastIdentity,
  lastNameIdentity,
} from '../model/identity.ts';
import { type Prefix, parsePrefix } from '../model/prefix.ts';
import { entryKey } from '../policy/compile/keys.ts';
import { noTables } from '../policy/http/matcher.ts';
import {
  firstFreeRule,
  type IdentityClass,
  type PeerEntry,
  type PolicyEntry,
  type PolicyImage,
  type PrefixEntry,
  type RuleSet,
  verdictCodes,
} from '../policy/image.ts';
import { alternativesIn, numbersInCell } from './http/tables.ts';
import type { RuleSetValue } from './layouts.ts';
import { restoreMatchers } from './names.ts';
import type { DatapathMaps } from './objects.ts';
import { isPeerKind, isPrefixKind, kindOf, prefixOfKey } from './places.ts';
import { type Survey, surveyConnections } from './survey.ts';

const everywhere = parsePrefix('::/0');

/**
 * Reads back from the maps which revision is in force, after a restart. What the numbers stood for is not in the maps:
 * classes, rules, keys of sets and what requests are matched by are placeholders that equal nothing. `counters` are beyond every number that the maps
 * use, so that what is compiled next shares none with what is there. Only patterns of names keep their numbers, since
 * addresses were learnt under them.
 */
export function restoreImage(maps: DatapathMaps, survey: Survey = surveyConnections(maps)): PolicyImage {
  const identities = new Set<IdentityNumber>();
  let lastRule = Math.max(firstFreeRule - 1, survey.lastRule);
  const patterns = new Map(
    [...maps.namePatterns.entries()].map(([number, { text }]) => [identityNumber(number), text]),
  );
  let lastPattern = Math.max(firstNameIdentity - 1, survey.lastPattern, ...patterns.keys());
  const note = (identity: IdentityNumber, rule = 0) => {
    if (identity >= firstNameIdentity) lastPattern = Math.max(lastPattern, identity);
    else if (identity >= firstFreeIdentity) identities.add(identity);
    lastRule = Math.max(lastRule, rule);
  };
  const peers = new Map<IpAddress, PeerEntry>();
  for (const [address, { identity, kind }] of maps.peers.entries()) {
    note(identity);
    const name = kindOf(kind);
    peers.set(address, { identity, kind: isPeerKind(name) ? name : 'remote-pod', owner: '' });
  }
  const prefixes = new Map<Prefix, PrefixEntry>();
  for (const [key, { identity, kind }] of maps.prefixes.entries()) {
    note(identity);
    const name = kindOf(kind);
    prefixes.set(prefixOfKey(key), { identity, kind: isPrefixKind(name) ? name : 'unknown-pod' });
  }
  const entriesOf = new Map<number, PolicyEntry[]>();
  const lists = new Map<number, readonly number[]>();
  const listIn = (cell: number): readonly number[] => {
    const known = lists.get(cell) ?? numbersInCell(maps, cell);
    lists.set(cell, known);
    return known;
  };
  for (const [{ set, ...key }, { precedence, rule, verdict, flags, cell }] of maps.policy.entries()) {
    note(key.identity, rule);
    const entry: PolicyEntry = {
      ...key,
      precedence,
      rule,
      verdict: verdictOf(verdict, cell),
      flags,
      ...(cell === 0 ? {} : { requests: listIn(cell) }),
    };
    const known = entriesOf.get(set);
    if (known === undefined) entriesOf.set(set, [entry]);
    else known.push(entry);
  }
  const matchers = restoreMatchers(maps);
  const ruleSets = new Map<number, RuleSet>();
  const restoreSet = (
    id: number,
    { matcher, ...head }: Pick<RuleSetValue, 'probes' | 'flags' | 'rule' | 'matcher'>,
  ) => {
    const alternatives = matcher === 0 ? [] : alternativesIn(maps, matcher);
    for (const { rule } of alternatives) lastRule = Math.max(lastRule, rule);
    return ruleSets.set(id, {
      id,
      key: `restored ${id}`,
      direction: 'ingress',
      stage: 'network',
      ...head,
      entries: (entriesOf.get(id) ?? []).sort((a, b) => entryKey(a) - entryKey(b)),
      ...(matcher === 0 ? {} : { matcher: { alternatives, tables: noTables } }),
    });
  };
  for (const [id, head] of maps.ruleSets.entries()) {
    lastRule = Math.max(lastRule, head.rule);
    restoreSet(id, head);
  }
  // Entries without their set were left by a process that ended in between: nothing finds them, and they are to go.
  for (const id of entriesOf.keys())
    if (!ruleSets.has(id)) restoreSet(id, { probes: 0, flags: 0, rule: 0, matcher: 0 });
  for (const [, { identity4, identity6 }] of maps.endpoints.entries()) {
    note(identity4);
    note(identity6);
  }
  for (const [, { identity }] of maps.tunnels.entries()) note(identity);
  for (const identity of survey.identities) note(identity);
  return {
    node: '',
    identities: new Map([...identities].map((number) => [number, placeholder(number)])),
    peers,
    prefixes,
    ruleSets,
    endpoints: new Map(),
    rules: new Map(),
    conflicts: [],
    patterns,
    matchers,
    counters: {
      identity: following(identities, firstFreeIdentity, lastIdentity),
      ruleSet: following(ruleSets.keys(), 1, 0xffff_ffff),
      rule: lastRule + 1,
      pattern: following([lastPattern], firstNameIdentity, lastNameIdentity),
      matcher: following(matchers.keys(), 1, 0xffff_ffff),
    },
  };
}

function verdictOf(code: number, cell: number): PolicyEntry['verdict'] {
  if (code === verdictCodes.none && cell !== 0) return 'none';
  const known = (['allow', 'pass', 'proxy'] as const).find((verdict) => verdictCodes[verdict] === code);
  return known ?? 'deny';
}

function placeholder(number: IdentityNumber): IdentityClass {
  return { key: `restored ${number}`, kind: 'world', region: everywhere };
}

/** The number after the highest; the first again where that is the last there is. */
function following(numbers: Iterable<number>, first: number, last: number): number {
  let highest = first - 1;
  for (const number of numbers) highest = Math.max(highest, number);
  return highest >= last ? first : highest + 1;
}
