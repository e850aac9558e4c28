import type { IpAddress } from '../model/address.ts';
import { type IdentityNumber, reservedIdentity } from '../model/identity.ts';
import { protocolNumbers } from '../model/port.ts';
import type { Direction, DropReason } from '../model/verdict.ts';
import { type Bits, lowestCommonBit, noBits } from '../policy/http/bits.ts';
import { runMatcher } from '../policy/http/run.ts';
import {
  anyProtocolProbe,
  noSet,
  peerKinds,
  reservedRules,
  ruleSetFlags,
  type Stage,
  setIdOf,
  verdictCodes,
} from '../policy/image.ts';
import type { HttpRequest } from '../policy/request.ts';
import { bitsIn, type HttpMaps, tablesIn } from './http/tables.ts';
import { endpointFlags, type Peer, type PolicyKey, type PolicyValue } from './layouts.ts';
import type { DatapathMaps } from './objects.ts';

/** The first packet of a connection, at one endpoint's interface. */
export interface MapQuery {
  /** Device index of the endpoint's interface. */
  readonly ifindex: number;
  readonly direction: Direction;
  /** The other end. */
  readonly remote: IpAddress;
  readonly protocol: number;
  /** The destination's; for ICMP, `icmpPort`; 0 where the protocol has none. */
  readonly port: number;
  /** The patterns of names that the other end's address counts for. Default: as the endpoint was told by now. */
  readonly names?: readonly IdentityNumber[];
  /** Ingress over TCP: the request that is made, in canonical form. Without it, the worst is assumed. */
  readonly request?: HttpRequest;
}

export interface MapVerdict {
  /** `proxy`: the proxy judges what is asked on the connection. */
  readonly verdict: 'allow' | 'deny' | 'proxy';
  /** Set where the verdict is deny. */
  readonly reason?: DropReason;
  /** `reservedRules.none` where no rule decided. */
  readonly rule: number;
  /** Who the maps say is at the other end. */
  readonly identity: IdentityNumber;
}

type PolicyMaps = HttpMaps & Pick<DatapathMaps, 'config' | 'endpoints' | 'peers' | 'prefixes'>;

/**
 * Asks the maps as they are now, in the way the programs do: to compare what is in the kernel with the reference decision.
 * Who sends is taken to be who its address says, as if that were proven; what a packet is dropped for before policy is
 * asked (spoofing, no proof) is not looked at.
 */
export function evaluateMaps(maps: PolicyMaps & Pick<DatapathMaps, 'names'>, query: MapQuery): MapVerdict {
  const { direction, remote } = query;
  const { identity, kind } = findPeer(maps, remote);
  const allow = (rule: number): MapVerdict => ({ verdict: 'allow', rule, identity });
  const deny = (reason: DropReason, rule: number = reservedRules.none): MapVerdict => ({
    verdict: 'deny',
    reason,
    rule,
    identity,
  });
  const endpoint = maps.endpoints.get(query.ifindex);
  if (endpoint === undefined || (endpoint.flags & endpointFlags.ready) === 0) return deny('ENDPOINT_NOT_READY');
  if ((endpoint.flags & endpointFlags.revoked) !== 0) return deny('REVOKED');
  if (kind === peerKinds['unknown-pod']) return deny('UNKNOWN_PEER');
  if (kind === peerKinds['unknown-service']) return deny('NO_SERVICE_BACKEND');
  if (remote === endpoint.addr4 || remote === endpoint.addr6) return allow(reservedRules.self);
  if (direction === 'ingress' && kind === peerKinds['this-node'])
    return { ...allow(reservedRules.ownNode), identity: reservedIdentity.host };

  const told = direction === 'egress' && kind === peerKinds.world && endpoint.names !== 0;
  const known = { ...query, names: query.names ?? (told ? patternsAt(maps, endpoint.id, remote) : []) };
  const ask = (stage: Stage): MapVerdict | undefined => {
    const id = setIdOf(endpoint, direction, stage);
    return id === noSet && stage !== 'network' ? undefined : askSet(maps, id, known, identity);
  };
  const byNetwork = ask('admin') ?? ask('network');
  if (byNetwork?.verdict === 'deny') return byNetwork;
  const byMesh = ask('mesh');
  if (byMesh?.verdict === 'deny') return byMesh;
  if (byMesh?.verdict === 'proxy') return { ...(byNetwork ?? byMesh), verdict: 'proxy' };
  return byNetwork ?? byMesh ?? allow(reservedRules.none);
}

/** @returns Undefined where the set leaves it to whatever comes after it. */
function askSet(maps: PolicyMaps, setId: number, query: MapQuery, identity: IdentityNumber): MapVerdict | undefined {
  const deny = (reason: DropReason, rule: number): MapVerdict => ({ verdict: 'deny', reason, rule, identity });
  const set = maps.ruleSets.get(setId);
  if (set === undefined) return deny(setId === noSet ? 'ENDPOINT_NOT_READY' : 'UNKNOWN_RULE_SET', reservedRules.none);
  const bits = set.matcher === 0 ? undefined : bitsFor(maps, set.matcher, query.request);
  let best: Pick<PolicyValue, 'precedence' | 'verdict' | 'rule'> | undefined;
  const consider = (candidate: typeof best): void => {
    if (candidate === undefined || (best !== undefined && candidate.precedence < best.precedence)) return;
    if (candidate.precedence === best?.precedence && candidate.verdict !== verdictCodes.deny) return;
    best = candidate;
  };
  for (const key of probesFor(setId, set.probes, identity, query)) {
    const entry = maps.policy.get(key);
    if (entry === undefined) continue;
    if (entry.verdict !== verdictCodes.none) consider(entry);
    const cell = entry.cell === 0 ? undefined : maps.httpCells.get(entry.cell);
    if (cell === undefined || bits === undefined) continue;
    const number = lowestCommonBit(bitsIn(cell.bits), bits);
    const first = maps.httpMatchers.get(set.matcher)?.firstAlternative ?? 0;
    if (number !== undefined) consider(maps.httpAlternatives.get(first + number));
  }
  if (best?.verdict === verdictCodes.allow) return { verdict: 'allow', rule: best.rule, identity };
  if (best?.verdict === verdictCodes.proxy) return { verdict: 'proxy', rule: best.rule, identity };
  if (best !== undefined && best.verdict !== verdictCodes.pass) return deny('POLICY_DENIED_EXPLICIT', best.rule);
  return (set.flags & ruleSetFlags.isolated) === 0 ? undefined : deny('POLICY_DENIED', set.rule);
}

/** The alternatives that the request is; of a request that nobody knows, those that deny. */
function bitsFor(maps: PolicyMaps, matcher: number, request: HttpRequest | undefined): Bits {
  if (request !== undefined) return runMatcher(tablesIn(maps, matcher), request);
  const strict = maps.httpMatchers.get(matcher)?.strict;
  return strict === undefined ? noBits() : bitsIn(strict);
}

/** What the endpoint was told about the address, as far as it has not run out. */
function patternsAt({ names }: Pick<DatapathMaps, 'names'>, endpoint: number, address: IpAddress): IdentityNumber[] {
  const value = names.get({ endpoint, address });
  const now = process.hrtime.bigint();
  return (value?.patterns ?? []).filter((number, i) => number !== 0 && (value?.expiresNs[i] ?? 0n) >= now);
}

/** Exact addresses first, then the longest prefix; a miss is the world. */
function findPeer(maps: PolicyMaps, address: IpAddress): Peer {
  return (
    maps.peers.get(address) ??
    maps.prefixes.get({ length: 128, address }) ?? { identity: reservedIdentity.world, kind: peerKinds.world }
  );
}

function* probesFor(set: number, probes: number, other: IdentityNumber, query: MapQuery): Generator<PolicyKey> {
  const { TCP, UDP, SCTP, ICMP, ICMPv6 } = protocolNumbers;
  for (const identity of [other, reservedIdentity.any, ...(query.names ?? [])]) {
    if ((probes & anyProtocolProbe) !== 0) yield { set, identity, port: 0, protocol: 0, portLength: 0 };
    if (![TCP, UDP, SCTP, ICMP, ICMPv6].some((ported) => ported === query.protocol)) continue;
    for (let portLength = 0; portLength <= 16; portLength++) {
      if ((probes & (1 << portLength)) === 0) continue;
      const port = query.port & (0xffff_0000 >>> portLength) & 0xffff;
      yield { set, identity, port, protocol: query.protocol, portLength };
    }
  }
}
