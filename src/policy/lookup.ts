import { type IpAddress, ipToBytes16 } from '../model/address.ts';
import { type IdentityNumber, reservedIdentity } from '../model/identity.ts';
import { type Protocol, protocolNumbers } from '../model/port.ts';
import { type Prefix, prefixParts } from '../model/prefix.ts';
import type { Direction, DropReason } from '../model/verdict.ts';
import { entryKey, portBlock } from './compile/keys.ts';
import { hasBit } from './http/bits.ts';
import { runMatcher } from './http/run.ts';
import {
  anyProtocolProbe,
  noSet,
  type PeerEntry,
  type PolicyEntry,
  type PolicyImage,
  type PrefixEntry,
  type RuleSet,
  reservedRules,
  ruleSetFlags,
  type Stage,
  setIdOf,
} from './image.ts';
import { matchName, type NameAccept, type NameMatcher } from './names/matcher.ts';
import { normalName } from './request/domain.ts';
import type { HttpRequest } from './request.ts';

/** What an image says of the first packet of a connection, at one pod's interface. */
export interface LookupResult {
  /** `proxy`: the connection is led through the proxy, which judges what is asked on it. */
  readonly verdict: 'allow' | 'deny' | 'proxy';
  /** Set where the verdict is deny. */
  readonly reason?: DropReason;
  /** `PolicyImage.rules` says what it stands for; `reservedRules.none` where no rule decided. */
  readonly rule: number;
  /** `optionFlags` of the rule, or of the isolation that denied. */
  readonly flags: number;
  /** What the peer's address was found to be. */
  readonly identity: IdentityNumber;
  /** The entry that decided, or at which the alternative stands that did. */
  readonly entry?: PolicyEntry;
  /** No request is known, and policy allows some: the connection is admitted, and its requests are read and judged. */
  readonly byRequest?: true;
  /** The network gate leaves it to the proxy, and the mesh denies it first: which rule is named depends on the request. */
  readonly beforeProxy?: true;
  /** Of a connection that could be read, and is denied whatever its requests are: what denies the best of them. */
  readonly atBest?: Pick<LookupResult, 'reason' | 'rule'>;
}

/** What is known of a flow's requests: one, or nothing, of which the worst or the best is assumed. */
type Assumed = HttpRequest | 'strict' | 'lenient';

/** What is known of the flow beside its packets' addresses. */
export interface Seen {
  /** Egress: the names under which the endpoint has learnt the peer's address, while that counts. */
  readonly names?: readonly string[];
  /** The name that it asks for, as a question to a DNS server. */
  readonly question?: string;
  /** Ingress over TCP: the request that is made, in canonical form. */
  readonly request?: HttpRequest;
}

/**
 * Evaluates an image the way the BPF programs evaluate the maps, probe by probe.
 * @param peerAddress The other end: the destination of egress, the source of ingress.
 * @param protocol A name or an IP protocol number.
 * @param port The destination's; for ICMP, `icmpPort`; 0 where the protocol has none.
 * @param audited Whether to ask as if audited policies were enforced.
 */
export function lookup(
  image: PolicyImage,
  endpointUid: string,
  direction: Direction,
  peerAddress: IpAddress,
  protocol: Protocol | number,
  port: number,
  audited = false,
  { names = [], question, request }: Seen = {},
): LookupResult {
  const deny = (reason: DropReason, identity: IdentityNumber = reservedIdentity.any): LookupResult => ({
    verdict: 'deny',
    reason,
    rule: reservedRules.none,
    flags: 0,
    identity,
  });
  const endpoint = image.endpoints.get(endpointUid);
  if (endpoint === undefined) return deny('ENDPOINT_NOT_READY');
  const { kind, identity } = findPeer(image, peerAddress);
  if (kind === 'unknown-pod') return deny('UNKNOWN_PEER');
  if (kind === 'unknown-service') return deny('NO_SERVICE_BACKEND');
  if (endpoint.addresses.includes(peerAddress))
    return { verdict: 'allow', rule: reservedRules.self, flags: 0, identity };
  if (direction === 'ingress' && kind === 'this-node')
    return { verdict: 'allow', rule: reservedRules.ownNode, flags: 0, identity: reservedIdentity.host };

  const number = typeof protocol === 'number' ? protocol : protocolNumbers[protocol];
  const matcher = direction === 'egress' ? image.matchers.get(endpoint.names) : undefined;
  const learnt =
    matcher === undefined || kind !== 'world' ? [] : names.flatMap((name) => accepted(matcher, name).patterns);
  const whom: Whom = [identity, reservedIdentity.any, ...new Set(learnt)];
  const asked = matcher?.asks === true && question !== undefined ? accepted(matcher, question).sets : undefined;
  const ask = (stage: Stage, assumed: Assumed): LookupResult | undefined => {
    const id = asked?.[stage] ?? setIdOf((audited ? endpoint.audit : undefined) ?? endpoint, direction, stage);
    if (id === noSet && stage !== 'network') return undefined;
    const set = image.ruleSets.get(id);
    return set === undefined ? deny('UNKNOWN_RULE_SET', identity) : askSet(set, whom, number, port, assumed);
  };
  const decided = (assumed: Assumed): LookupResult => {
    const byNetwork = ask('admin', assumed) ?? ask('network', assumed);
    if (byNetwork?.verdict === 'deny') return byNetwork;
    // Where both gates allow, the first one that has a rule for it is named.
    const byMesh = ask('mesh', assumed);
    if (byMesh?.verdict === 'deny') return byNetwork?.verdict === 'proxy' ? { ...byMesh, beforeProxy: true } : byMesh;
    if (byMesh?.verdict === 'proxy') return { ...(byNetwork ?? byMesh), verdict: 'proxy' };
    return byNetwork ?? byMesh ?? { verdict: 'allow', rule: reservedRules.none, flags: 0, identity };
  };
  const readable = direction === 'ingress' && number === protocolNumbers.TCP;
  const strictly = decided('strict');
  if (strictly.verdict === 'proxy' || !readable) return strictly;
  if (request === undefined && strictly.verdict === 'allow') return strictly;
  const atBest = decided('lenient');
  if (strictly.verdict === 'deny' && atBest.verdict === 'proxy') return atBest;
  if (request !== undefined) return decided(request);
  return atBest.verdict === 'allow' ? { ...strictly, byRequest: true } : { ...strictly, atBest };
}

/** Who the peer is, and what else entries are looked for by. */
type Whom = readonly [IdentityNumber, ...IdentityNumber[]];

/** @returns Undefined where the set leaves it to whatever comes after it. */
function askSet(set: RuleSet, whom: Whom, protocol: number, port: number, assumed: Assumed): LookupResult | undefined {
  const [identity] = whom;
  const highest = highestEntry(set, whom, protocol, port, assumed);
  if (highest !== undefined && highest.verdict !== 'pass') {
    const { verdict, rule, flags, entry } = highest;
    const decided = { rule, flags, identity, entry };
    return verdict === 'deny' ? { verdict, reason: 'POLICY_DENIED_EXPLICIT', ...decided } : { verdict, ...decided };
  }
  if ((set.flags & ruleSetFlags.isolated) === 0) return undefined;
  return {
    verdict: 'deny',
    reason: 'POLICY_DENIED',
    rule: set.rule,
    flags: set.flags & ~ruleSetFlags.isolated,
    identity,
  };
}

/** A name as the datapath has it: in lower case, without its last dot, the root a dot. */
function accepted(matcher: NameMatcher, name: string): NameAccept {
  return matchName(matcher, normalName(name) || '.');
}

/** The number that stands for a pod at one of its addresses; undefined where that is not the pod's address. */
export function identityOf(image: PolicyImage, uid: string, address: IpAddress): IdentityNumber | undefined {
  const peer = image.peers.get(address);
  return peer?.owner === uid ? peer.identity : undefined;
}

/** The maps `peers`, then `prefixes`; who is in neither is the world. */
export function findPeer(image: PolicyImage, address: IpAddress): Pick<PeerEntry | PrefixEntry, 'identity' | 'kind'> {
  const peer = image.peers.get(address);
  if (peer !== undefined) return peer;
  let longest = -1;
  let found: PrefixEntry = { identity: reservedIdentity.world, kind: 'world' };
  for (const [prefix, entry] of image.prefixes) {
    const length = matchedBits(prefix, address);
    if (length <= longest) continue;
    longest = length;
    found = entry;
  }
  return found;
}

/** In the 128 bits that the map compares, where IPv4 is ::ffff:a.b.c.d. @returns The prefix's length there; -1 if no match. */
function matchedBits(prefix: Prefix, address: IpAddress): number {
  const { address: network, length, family } = prefixParts(prefix);
  const bits = family === 4 ? length + 96 : length;
  const a = ipToBytes16(network);
  const b = ipToBytes16(address);
  for (let i = 0; i < 16; i++) {
    const kept = Math.max(0, Math.min(8, bits - 8 * i));
    if (((a[i] ?? 0) ^ (b[i] ?? 0)) >> (8 - kept) !== 0) return -1;
  }
  return bits;
}

/** An entry, or an alternative that stands at one, as something that decides. */
interface Candidate {
  readonly precedence: number;
  readonly verdict: 'allow' | 'deny' | 'pass' | 'proxy';
  readonly rule: number;
  readonly flags: number;
  readonly entry: PolicyEntry;
}

function highestEntry(
  set: RuleSet,
  whom: readonly IdentityNumber[],
  protocol: number,
  port: number,
  assumed: Assumed,
): Candidate | undefined {
  const entries = indexOf(set);
  const stands = standing(set, assumed);
  let best: Candidate | undefined;
  const consider = (candidate: Candidate): void => {
    const higher = best === undefined || candidate.precedence > best.precedence;
    if (higher || (candidate.precedence === best?.precedence && candidate.verdict === 'deny')) best = candidate;
  };
  const probe = (who: IdentityNumber, number: number, portLength: number): void => {
    const match = { identity: who, protocol: number, port: portBlock(port, portLength), portLength };
    const entry = entries.get(entryKey(match));
    if (entry === undefined) return;
    const { verdict, precedence, rule, flags, requests = [] } = entry;
    if (verdict !== 'none') consider({ verdict, precedence, rule, flags, entry });
    const first = requests.find(stands);
    const alternative = first === undefined ? undefined : set.matcher?.alternatives[first];
    if (alternative !== undefined) consider({ ...alternative, entry });
  };
  for (const who of whom) {
    for (let length = 0; length <= 16; length++) if (set.probes & (1 << length)) probe(who, protocol, length);
    if (set.probes & anyProtocolProbe) probe(who, 0, 0);
  }
  return best;
}

/** Which alternatives of a set's matcher count for what is known of the request. */
function standing({ matcher }: RuleSet, assumed: Assumed): (number: number) => boolean {
  if (matcher === undefined) return () => false;
  if (typeof assumed !== 'string') {
    const bits = runMatcher(matcher.tables, assumed);
    return (number) => hasBit(bits, number);
  }
  const verdict = assumed === 'strict' ? 'deny' : 'allow';
  return (number) => matcher.alternatives[number]?.verdict === verdict;
}

const indexes = new WeakMap<RuleSet, ReadonlyMap<number, PolicyEntry>>();

function indexOf(set: RuleSet): ReadonlyMap<number, PolicyEntry> {
  const known = indexes.get(set);
  if (known !== undefined) return known;
  const index = new Map(set.entries.map((entry) => [entryKey(entry), entry]));
  indexes.set(set, index);
  return index;
}
