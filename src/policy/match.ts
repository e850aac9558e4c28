import type { IpAddress } from '../model/address.ts';
import type { NamedPort, PodView } from '../model/endpoint.ts';
import { type Labels, selects } from '../model/labels.ts';
import { hasPorts, type Protocol } from '../model/port.ts';
import { prefixContains } from '../model/prefix.ts';
import type { NamespaceMatch, PeerMatch, PodMatch, PortMatch } from './rule.ts';
import type { ClusterView } from './view.ts';

/** One end of a flow as a rule sees it: a pod at one of its addresses, or an address that is no pod's (a node, the world). */
export interface RulePeer {
  readonly pod?: PodView;
  /** Absent where the pod has no address of the flow's family: no CIDR holds it. */
  readonly address?: IpAddress;
}

export interface RulePort {
  readonly protocol: Protocol | number;
  readonly port: number;
  /** The destination pod's; none where the destination is not a pod. */
  readonly namedPorts: readonly NamedPort[];
}

/** Whether a policy with this subject is about the pod. */
export function selectsPod(view: ClusterView, subject: PodMatch, pod: PodView): boolean {
  return (
    !pod.hostNetwork &&
    matchesNamespace(subject.namespaces, pod.namespace, view.namespaces.get(pod.namespace)) &&
    selects(subject.pods, pod.labels)
  );
}

export function matchesPeer(view: ClusterView, match: PeerMatch, { pod, address }: RulePeer): boolean {
  if (match.kind === 'pods') return pod !== undefined && selectsPod(view, match, pod);
  return (
    address !== undefined &&
    prefixContains(match.cidr, address) &&
    !match.except.some((hole) => prefixContains(hole, address))
  );
}

export function matchesAnyPeer(view: ClusterView, peers: readonly PeerMatch[] | 'any', peer: RulePeer): boolean {
  return peers === 'any' || peers.some((match) => matchesPeer(view, match, peer));
}

/** A named port that several of the pod's containers define matches each of their numbers. */
export function matchesPort(match: PortMatch, { protocol, port, namedPorts }: RulePort): boolean {
  if (protocol !== match.protocol || !hasPorts(protocol)) return false;
  const wanted = match.port;
  if ('from' in wanted) return wanted.from <= port && port <= wanted.to;
  return namedPorts.some((named) => named.name === wanted.name && named.protocol === protocol && named.port === port);
}

/** Without ports a rule is about every protocol; with ports it is about those protocols and ports only. */
export function matchesAnyPort(ports: readonly PortMatch[] | 'any', port: RulePort): boolean {
  return ports === 'any' || ports.some((match) => matchesPort(match, port));
}

/**
 * @param labels Undefined while the namespace is not known: then only its name can match, because a selector such as
 * `DoesNotExist` would otherwise select what nobody has looked at.
 */
export function matchesNamespace(match: NamespaceMatch, name: string, labels: Labels | undefined): boolean {
  if ('name' in match) return match.name === name;
  return labels !== undefined && selects(match.selector, labels);
}
