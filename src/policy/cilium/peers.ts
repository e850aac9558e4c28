import type { z } from 'zod';
import type { parsePrefix } from '../../model/prefix.ts';
import type { NameMatch, PeerMatch } from '../rule.ts';
import type { LimitAt } from './limit.ts';
import { toDomain } from './requests.ts';
import type { CidrRuleSpec, EndpointSelectorSpec, serviceSpec } from './schema.ts';
import type { DomainSpec } from './schema-ports.ts';
import {
  everybody,
  everyNode,
  everyPod,
  matchSelector,
  nobody,
  nodeLabels,
  possibleApiServer,
  reservedPeer,
  type Scope,
} from './selector.ts';
import { addressPeers, backendsOf, type ServiceLookup } from './services.ts';

type List<T> = readonly T[] | null | undefined;

/** The peers of a rule by what they are, whatever the direction calls the fields. */
export interface PeersSpec {
  readonly prefix: 'from' | 'to';
  readonly endpoints: List<EndpointSelectorSpec>;
  readonly requires: List<EndpointSelectorSpec>;
  readonly cidr: List<ReturnType<typeof parsePrefix>>;
  readonly cidrSet: List<CidrRuleSpec>;
  readonly entities: List<string>;
  readonly nodes: List<EndpointSelectorSpec>;
  readonly groups: List<unknown>;
  readonly services?: List<z.infer<typeof serviceSpec>>;
  readonly fqdns?: List<DomainSpec>;
}

export interface PeersMatch {
  /** Undefined: none are named. An empty list: nobody is meant. */
  readonly peers: readonly (PeerMatch | NameMatch)[] | undefined;
  readonly limits: readonly LimitAt[];
}

/**
 * Whom a rule is about. A list that is there and empty selects nobody; where none is there, the rule is about everybody,
 * if it names ports, or else about nobody (which is its caller's to know).
 * @param known The cluster's services, for those who follow them; without them what is about services is a limit.
 */
export function matchPeers(
  spec: PeersSpec,
  scope: Scope,
  verdict: 'allow' | 'deny',
  known: ServiceLookup | undefined,
): PeersMatch {
  const limits: LimitAt[] = [];
  const unknown = verdict === 'allow' ? 'nobody' : 'everybody';
  const { prefix } = spec;
  const limit = (reason: string, ...path: (string | number)[]): void => {
    limits.push({ path, reason });
  };
  /** What nothing here can find: nobody to allow, and whoever it could be to deny. */
  const lost = (possible: PeerMatch): PeerMatch => (verdict === 'allow' ? nobody : possible);

  const lists = [spec.endpoints, spec.cidr, spec.cidrSet, spec.entities, spec.nodes];
  if (lists.some((list) => list?.length === 0)) return { peers: [], limits };

  const peers: (PeerMatch | NameMatch)[] = [];
  for (const [index, selector] of (spec.endpoints ?? []).entries()) {
    const { peer, limits: own } = matchSelector(selector, scope, unknown);
    peers.push(peer);
    for (const reason of own) limit(reason, `${prefix}Endpoints`, index);
  }
  for (const cidr of spec.cidr ?? []) peers.push({ kind: 'cidr', cidr, except: [], worldOnly: true });
  for (const [index, { cidr, except, cidrGroupRef }] of (spec.cidrSet ?? []).entries())
    if (cidr != null) peers.push({ kind: 'cidr', cidr, except: except ?? [], worldOnly: true });
    else {
      const field = cidrGroupRef ? 'cidrGroupRef' : 'cidrGroupSelector';
      limit(
        `groups of CIDRs are not read: ${taken(verdict, 'every address outside')}`,
        `${prefix}CIDRSet`,
        index,
        field,
      );
      peers.push(lost({ kind: 'world' }));
    }
  for (const [index, entity] of (spec.entities ?? []).entries()) {
    const peer = entityPeer(entity);
    if (peer !== undefined) peers.push(peer);
    else if (known !== undefined)
      peers.push(...(known.apiServers.length === 0 ? [lost(possibleApiServer)] : addressPeers(known.apiServers)));
    else {
      limit(
        `the API server’s addresses are not known here: ${taken(verdict, 'every node and every address outside')}`,
        `${prefix}Entities`,
        index,
      );
      peers.push(lost(possibleApiServer));
    }
  }
  for (const [index, selector] of (spec.nodes ?? []).entries()) {
    const labels = nodeLabels(selector);
    if (labels !== undefined) peers.push({ kind: 'node', which: 'other', labels });
    else {
      limit(`only a node’s own labels are known: ${taken(verdict, 'every node')}`, `${prefix}Nodes`, index);
      peers.push(lost({ kind: 'node', which: 'other' }));
    }
  }
  if (spec.groups?.length) {
    limit(`groups of other providers are not read: ${taken(verdict, 'every address outside')}`, `${prefix}Groups`);
    peers.push(lost({ kind: 'world' }));
  }
  for (const [index, service] of (spec.services ?? []).entries()) {
    const backends = known === undefined ? undefined : backendsOf(service, known, scope, verdict);
    if (backends !== undefined) peers.push(...backends);
    else {
      const why = known === undefined ? 'services are not known here' : 'only a Service’s own labels are known';
      limit(`${why}: ${taken(verdict, 'everybody')}`, `${prefix}Services`, index);
      peers.push(lost(everybody));
    }
  }
  for (const name of spec.fqdns ?? []) peers.push({ kind: 'name', pattern: toDomain(name) });
  // Services without backends are named all the same: the rule is about nobody then.
  const isNamed = peers.length > 0 || (spec.services?.length ?? 0) > 0;
  return { peers: isNamed ? peers : undefined, limits };
}

function taken(verdict: 'allow' | 'deny', all: string): string {
  return verdict === 'allow' ? 'nobody is allowed by it' : `${all} is denied`;
}

/** @returns Undefined for the API server. */
function entityPeer(name: string): PeerMatch | undefined {
  if (name === 'all') return everybody;
  if (name === 'cluster' || name === 'cluster-mesh') return { kind: 'some', of: [everyPod, everyNode] };
  return name === 'kube-apiserver' ? undefined : (reservedPeer(name) ?? nobody);
}
