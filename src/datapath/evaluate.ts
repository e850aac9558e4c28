import { type IdentityNumber, reservedIdentity } from '../model/identity.ts';
import { protocolNumbers } from '../model/port.ts';
import type { Direction, DropReason } from '../model/verdict.ts';
import { anyProtocolProbe, reservedRules, ruleSetFlags, verdictCodes } from '../policy/image.ts';
import { configFlags, endpointFlags, type PolicyKey, type PolicyValue } from './layouts.ts';
import type { DatapathMaps } from './objects.ts';

/** The first packet of a connection, at one endpoint's interface. */
export interface MapQuery {
  /** Device index of the endpoint's interface. */
  readonly ifindex: number;
  readonly direction: Direction;
  /** Of the other end. */
  readonly identity: IdentityNumber;
  readonly protocol: number;
  /** The destination's. */
  readonly port: number;
}

export interface MapVerdict {
  readonly verdict: 'allow' | 'deny';
  readonly reason?: DropReason;
  /** `reservedRules.none` where no rule decided. */
  readonly rule: number;
}

/**
 * Asks the maps as they are now, in the way bpf/lib/policy.h does: to compare what is in the kernel with the reference
 * decision. What is decided before policy is asked (spoofing, proof, the node's own traffic) is not looked at.
 */
export function evaluateMaps(
  maps: Pick<DatapathMaps, 'config' | 'endpoints' | 'ruleSets' | 'policy'>,
  query: MapQuery,
): MapVerdict {
  const deny = (reason: DropReason, rule: number = reservedRules.none): MapVerdict => ({
    verdict: 'deny',
    reason,
    rule,
  });
  const endpoint = maps.endpoints.get(query.ifindex);
  if (endpoint === undefined || (endpoint.flags & endpointFlags.ready) === 0) return deny('ENDPOINT_NOT_READY');
  const setId = query.direction === 'egress' ? endpoint.egressSet : endpoint.ingressSet;
  if (setId === 0) return deny('ENDPOINT_NOT_READY');
  const set = maps.ruleSets.get(setId);
  if (set === undefined) return deny('UNKNOWN_RULE_SET');
  let best: PolicyValue | undefined;
  for (const key of probesFor(setId, set.probes, query)) {
    const entry = maps.policy.get(key);
    if (entry === undefined || (best !== undefined && entry.precedence < best.precedence)) continue;
    if (entry.precedence === best?.precedence && entry.verdict !== verdictCodes.deny) continue;
    best = entry;
  }
  if (best !== undefined)
    return best.verdict === verdictCodes.allow
      ? { verdict: 'allow', rule: best.rule }
      : deny('POLICY_DENIED_EXPLICIT', best.rule);
  if ((set.flags & ruleSetFlags.isolated) !== 0) return deny('POLICY_DENIED', set.rule);
  const defaultDeny = query.direction === 'egress' ? configFlags.defaultDenyEgress : configFlags.defaultDenyIngress;
  if (((maps.config.get(0)?.flags ?? 0) & defaultDeny) !== 0) return deny('POLICY_DENIED', reservedRules.defaultDeny);
  return { verdict: 'allow', rule: reservedRules.none };
}

function* probesFor(set: number, probes: number, query: MapQuery): Generator<PolicyKey> {
  const { TCP, UDP, SCTP } = protocolNumbers;
  for (const identity of [query.identity, reservedIdentity.any]) {
    if ((probes & anyProtocolProbe) !== 0) yield { set, identity, port: 0, protocol: 0, portLength: 0 };
    if (query.protocol !== TCP && query.protocol !== UDP && query.protocol !== SCTP) continue;
    for (let portLength = 0; portLength <= 16; portLength++) {
      if ((probes & (1 << portLength)) === 0) continue;
      const port = query.port & (0xffff_0000 >>> portLength) & 0xffff;
      yield { set, identity, port, protocol: query.protocol, portLength };
    }
  }
}
