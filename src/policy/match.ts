import type { IpAddress } from '../model/address.ts';
import type { NamedPort, PodView } from '../model/endpoint.ts';
import { type Labels, selects } from '../model/labels.ts';
import type { Protocol } from '../model/port.ts';
import { prefixContains } from '../model/prefix.ts';
import { matchesDomain } from './request/domain.ts';
import type { NameMatch, NamespaceMatch, PeerMatch, PortMatch, Rule, TextMatch } from './rule.ts';
import { type ClusterView, defaultTrustDomain, type PolicySettings } from './view.ts';

/** One end of a flow as a rule sees it: a pod at one of its addresses, a node, or the world. */
export interface RulePeer {
  readonly pod?: PodView;
  readonly node?: { readonly name: string /** Whether it is the node of the subject. */; readonly own: boolean };
  readonly world?: true;
  /** Absent where the end has no address of the flow's family: no CIDR holds it. */
  readonly address?: IpAddress;
  /** Under which the subject has learnt that address, and for how long is not over. */
  readonly names?: readonly string[];
}

export interface RulePort {
  readonly protocol: Protocol | number;
  /** For ICMP, `icmpPort`. */
  readonly port: number;
  /** The destination pod's; none where the destination is not a pod. */
  readonly namedPorts: readonly NamedPort[];
}

/** Whether a policy with this subject is about the pod. A pod that shares its node's network is never a subject. */
export function selectsPod(view: ClusterView, subject: PeerMatch, pod: PodView): boolean {
  return !pod.hostNetwork && matchesPeer(view, subject, { pod });
}

/** Whether a rule of a policy that selects the pod is about the pod, too. */
export function isAbout(view: ClusterView, { subject }: Rule, pod: PodView): boolean {
  return subject === undefined || pod.addresses.some((address) => matchesPeer(view, subject, { pod, address }));
}

export function matchesPeer(view: ClusterView, match: PeerMatch | NameMatch, peer: RulePeer): boolean {
  const { pod, node, world, address } = peer;
  switch (match.kind) {
    case 'pods':
      return (
        pod !== undefined &&
        matchesNamespace(match.namespaces, pod.namespace, view.namespaces.get(pod.namespace)) &&
        selects(match.pods, pod.labels)
      );
    case 'cidr':
      return (
        address !== undefined &&
        (match.worldOnly !== true || world === true) &&
        prefixContains(match.cidr, address) &&
        !match.except.some((hole) => prefixContains(hole, address))
      );
    case 'node':
      return (
        node !== undefined &&
        (match.which === 'any' || (match.which === 'own') === node.own) &&
        (match.labels === undefined || selects(match.labels, view.nodes.get(node.name)?.labels ?? {}))
      );
    case 'world':
      return world === true;
    case 'account':
      return pod !== undefined && matchesName(match.match, pod.serviceAccount);
    case 'namespace':
      return pod !== undefined && matchesName(match.match, pod.namespace);
    case 'principal':
      return pod !== undefined && matchesName(match.match, principalOf(view.settings, pod));
    case 'authenticated':
      return pod !== undefined;
    case 'name':
      return world === true && (peer.names ?? []).some((name) => matchesDomain(name, match.pattern));
    case 'all':
      return match.of.every((one) => matchesPeer(view, one, peer));
    case 'some':
      return match.of.some((one) => matchesPeer(view, one, peer));
    case 'not':
      return !matchesPeer(view, match.peer, peer);
  }
}

export function matchesName(match: TextMatch, name: string): boolean {
  switch (match.op) {
    case 'exact':
      return name === match.text;
    case 'prefix':
      return name.startsWith(match.text);
    case 'suffix':
      return name.endsWith(match.text);
    case 'present':
      return name !== '';
  }
}

/** A pod's identity as Istio writes it: its SPIFFE ID without the scheme. */
export function principalOf(
  { trustDomain = defaultTrustDomain }: PolicySettings,
  { namespace, serviceAccount }: Pick<PodView, 'namespace' | 'serviceAccount'>,
): string {
  return `${trustDomain}/ns/${namespace}/sa/${serviceAccount}`;
}

export function matchesAnyPeer(view: ClusterView, peers: Rule['peers'], peer: RulePeer): boolean {
  return peers === 'any' || peers.some((match) => matchesPeer(view, match, peer));
}

/**
 * A named port that several of the pod's containers define matches each of their numbers. An ICMP match without a type is
 * about every message.
 */
export function matchesPort(match: PortMatch, { protocol, port, namedPorts }: RulePort): boolean {
  if (protocol !== match.protocol) return false;
  if (!('port' in match))
    return match.type === undefined || (port >> 8 === match.type && [undefined, port & 0xff].includes(match.code));
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
