import type { Selector, SelectorRequirement } from '../../model/labels.ts';
import type { Protocol } from '../../model/port.ts';
import type { Party } from '../decide.ts';
import type { NamespaceMatch, PeerMatch, PortMatch, Rule } from '../rule.ts';

/** `app=cart,tier in (a,b),!legacy`, as kubectl writes selectors; empty for the one that selects everything. */
export function describeSelector({ matchLabels = {}, matchExpressions = [] }: Selector): string {
  const labels = Object.entries(matchLabels).map(([key, value]) => `${key}=${value}`);
  return [...labels, ...matchExpressions.map(describeRequirement)].join(',');
}

export function describeRequirement({ key, operator, values = [] }: SelectorRequirement): string {
  switch (operator) {
    case 'In':
      return `${key} in (${values.join(',')})`;
    case 'NotIn':
      return `${key} notin (${values.join(',')})`;
    case 'Exists':
      return key;
    case 'DoesNotExist':
      return `!${key}`;
  }
}

export function describeNamespaces(match: NamespaceMatch): string {
  if ('name' in match) return `namespace ${match.name}`;
  const labels = describeSelector(match.selector);
  return labels === '' ? 'every namespace' : `namespaces with ${labels}`;
}

export function describePeer(match: PeerMatch): string {
  if (match.kind === 'cidr')
    return match.except.length === 0 ? match.cidr : `${match.cidr} except ${match.except.join(', ')}`;
  const labels = describeSelector(match.pods);
  return `${labels === '' ? 'every pod' : `pods with ${labels}`} of ${describeNamespaces(match.namespaces)}`;
}

export function describePort({ protocol, port }: PortMatch): string {
  if ('name' in port) return `${protocol} ${port.name}`;
  if (port.from === 0 && port.to === 65535) return `every ${protocol} port`;
  return port.from === port.to ? `${protocol} ${port.from}` : `${protocol} ${port.from}-${port.to}`;
}

/** Whom a rule is about, and on which ports: `pods with app=frontend of namespace shop on TCP 7070`. */
export function describeRule({ peers, ports }: Rule): string {
  const who = peers === 'any' ? 'everybody' : peers.map(describePeer).join(' or ');
  return `${who} on ${ports === 'any' ? 'every protocol' : ports.map(describePort).join(', ')}`;
}

/** `TCP 80`, `ICMP`, `protocol 47`. */
export function describeFlowPort(protocol: Protocol | number, port: number): string {
  if (typeof protocol === 'number') return `protocol ${protocol}`;
  return protocol === 'ICMP' || protocol === 'ICMPv6' ? protocol : `${protocol} ${port}`;
}

export function describeParty(party: Party): string {
  const at = party.address === undefined ? '' : ` (${party.address})`;
  switch (party.kind) {
    case 'pod':
      return `pod ${party.pod.namespace}/${party.pod.name}${at}`;
    case 'node':
      return `node ${party.name}${at}`;
    case 'world':
      return party.address;
    case 'unknown':
      return party.address ?? 'nobody that is known';
  }
}
