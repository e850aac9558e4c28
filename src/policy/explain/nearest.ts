import { type Labels, type Selector, selects } from '../../model/labels.ts';
import { hasPorts } from '../../model/port.ts';
import { prefixContains } from '../../model/prefix.ts';
import { matchesNamespace, matchesPeer, matchesPort, type RulePeer, type RulePort } from '../match.ts';
import { matchesAnyRequest, type Request } from '../request.ts';
import type { CidrMatch, NameMatch, PeerMatch, PodMatch, PortMatch, Rule } from '../rule.ts';
import type { ClusterView } from '../view.ts';
import { describeFlowPort, describeNamespaces, describePeer, describePort, describeRequirement } from './describe.ts';

/** The rule that comes closest to allowing a flow, and all that keeps it from doing so. */
export interface NearestMiss {
  readonly rule: Rule;
  /** Each a clause: `the port differs: TCP 7070 is not TCP 8080`. Never empty. */
  readonly differences: readonly string[];
}

/** @returns The rule with the fewest differences, the first of equals; undefined where there is no allowing rule at all. */
export function nearestMiss(
  view: ClusterView,
  rules: readonly Rule[],
  peer: RulePeer,
  port: RulePort,
  request?: Request,
): NearestMiss | undefined {
  let nearest: NearestMiss | undefined;
  for (const rule of rules) {
    if (rule.verdict !== 'allow') continue;
    const differences = [
      ...peerDifferences(view, rule, peer),
      ...portDifferences(rule, port),
      ...requestDifferences(rule, request),
    ];
    if (nearest === undefined || differences.length < nearest.differences.length) nearest = { rule, differences };
  }
  return nearest;
}

function requestDifferences({ requests }: Rule, request: Request | undefined): string[] {
  if (requests === undefined) return [];
  if (request === undefined) return ['it allows some requests only, and which one this is cannot be seen here'];
  return matchesAnyRequest(request, requests) ? [] : ['it allows other requests than this one'];
}

function peerDifferences(view: ClusterView, { peers }: Rule, peer: RulePeer): string[] {
  if (peers === 'any') return [];
  return fewest(peers.map((match) => differencesTo(view, match, peer))) ?? ['it is about nobody'];
}

function differencesTo(view: ClusterView, match: PeerMatch | NameMatch, peer: RulePeer): string[] {
  if (matchesPeer(view, match, peer)) return [];
  switch (match.kind) {
    case 'pods':
      return podDifferences(view, match, peer);
    case 'cidr':
      return cidrDifferences(match, peer);
    case 'all':
      return match.of.flatMap((one) => differencesTo(view, one, peer));
    case 'some':
      return fewest(match.of.map((one) => differencesTo(view, one, peer))) ?? ['it is about nobody'];
    case 'not':
      return [`the peer is ${describePeer(match.peer)}`];
    default:
      return [`the peer is not ${describePeer(match)}`];
  }
}

function cidrDifferences({ cidr, except }: CidrMatch, { address }: RulePeer): string[] {
  if (address === undefined) return [`the peer has no address that could be in ${cidr}`];
  if (!prefixContains(cidr, address)) return [`the address ${address} is not in ${cidr}`];
  const hole = except.find((one) => prefixContains(one, address));
  if (hole !== undefined) return [`the address ${address} is in ${hole}, which is excepted`];
  return [`the address ${address} is in ${cidr}, but it is not outside the cluster`];
}

function podDifferences(view: ClusterView, match: PodMatch, { pod }: RulePeer): string[] {
  if (pod === undefined) return ['the peer is not a pod'];
  const differences = labelDifferences(match.pods, pod.labels, 'the peer');
  const labels = view.namespaces.get(pod.namespace);
  if (matchesNamespace(match.namespaces, pod.namespace, labels)) return differences;
  const wanted = describeNamespaces(match.namespaces);
  return [
    `the peer’s namespace differs: ${pod.namespace} is not ${'name' in match.namespaces ? wanted : `one of the ${wanted}`}`,
    ...differences,
  ];
}

function labelDifferences(selector: Selector, labels: Labels, who: string): string[] {
  const wanted = Object.entries(selector.matchLabels ?? {}).filter(
    ([key, value]) => !selects({ matchLabels: { [key]: value } }, labels),
  );
  const missed = (selector.matchExpressions ?? []).filter((one) => !selects({ matchExpressions: [one] }, labels));
  const is = (key: string): string =>
    Object.hasOwn(labels, key) ? `has ${key}=${labels[key]}` : `has no label ${key}`;
  return [
    ...wanted.map(([key, value]) => `${who} ${is(key)}, not ${key}=${value}`),
    ...missed.map((one) => `${who} ${is(one.key)}, which ${describeRequirement(one)} does not select`),
  ];
}

function portDifferences({ ports }: Rule, port: RulePort): string[] {
  if (ports === 'any') return [];
  return fewest(ports.map((match) => portDifference(match, port))) ?? ['it is about no port'];
}

function portDifference(match: PortMatch, port: RulePort): string[] {
  if (matchesPort(match, port)) return [];
  const flow = describeFlowPort(port.protocol, port.port);
  const wanted = describePort(match);
  if (!('port' in match)) return [`the protocol differs: ${flow} is not ${wanted}`];
  if (typeof port.protocol === 'number' || !hasPorts(port.protocol))
    return [`${flow} has no ports, and only rules without ports are about it`];
  if (port.protocol !== match.protocol) return [`the protocol differs: ${flow} is not ${wanted}`];
  if ('from' in match.port) return [`the port differs: ${flow} is not ${wanted}`];
  const { name } = match.port;
  const own = port.namedPorts.filter((named) => named.name === name && named.protocol === match.protocol);
  if (own.length === 0) return [`the destination has no ${match.protocol} port named ${name}`];
  return [`the port differs: ${flow} is not ${wanted}, which is ${own.map((named) => named.port).join(', ')} there`];
}

function fewest(candidates: readonly string[][]): string[] | undefined {
  return [...candidates].sort((a, b) => a.length - b.length)[0];
}
