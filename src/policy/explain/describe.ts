import type { Selector, SelectorRequirement } from '../../model/labels.ts';
import type { Protocol } from '../../model/port.ts';
import type { Party } from '../decide.ts';
import type { NameMatch, NamespaceMatch, PeerMatch, PortMatch, Rule, TextMatch } from '../rule.ts';

/** `app=cart,tier in (a,b),!legacy`, as kubectl writes selectors; empty for the one that selects everything. */
function describeSelector({ matchLabels = {}, matchExpressions = [] }: Selector): string {
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

export function describePeer(match: PeerMatch | NameMatch): string {
  switch (match.kind) {
    case 'pods': {
      const labels = describeSelector(match.pods);
      return `${labels === '' ? 'every pod' : `pods with ${labels}`} of ${describeNamespaces(match.namespaces)}`;
    }
    case 'cidr': {
      const holes = match.except.length === 0 ? '' : ` except ${match.except.join(', ')}`;
      return `${match.cidr}${holes}${match.worldOnly ? ' outside the cluster' : ''}`;
    }
    case 'node': {
      const which = { own: 'the pod’s own node', other: 'every other node', any: 'every node' }[match.which];
      const labels = describeSelector(match.labels ?? {});
      return labels === '' ? which : `${which} with ${labels}`;
    }
    case 'world':
      return 'everything outside the cluster';
    case 'account':
      return `pods whose service account is ${describeText(match.match)}`;
    case 'namespace':
      return `pods whose namespace is ${describeText(match.match)}`;
    case 'principal':
      return `pods whose identity is ${describeText(match.match)}`;
    case 'authenticated':
      return 'every pod';
    case 'name':
      return `the addresses of ${match.pattern.pattern}`;
    case 'all':
      return match.of.length === 0 ? 'everybody' : describeSeveral(match.of, ' and ');
    case 'some':
      return match.of.length === 0 ? 'nobody' : describeSeveral(match.of, ' or ');
    case 'not':
      return `not ${describeInner(match.peer)}`;
  }
}

function describeSeveral(peers: readonly PeerMatch[], joint: string): string {
  return peers.length === 1 ? peers.map(describePeer).join() : peers.map(describeInner).join(joint);
}

/** In parentheses where what it is part of could be read otherwise. */
function describeInner(match: PeerMatch): string {
  const several = (match.kind === 'all' || match.kind === 'some') && match.of.length > 1;
  return several ? `(${describePeer(match)})` : describePeer(match);
}

function describeText(match: TextMatch): string {
  switch (match.op) {
    case 'exact':
      return match.text;
    case 'prefix':
      return `${match.text}*`;
    case 'suffix':
      return `*${match.text}`;
    case 'present':
      return 'not empty';
  }
}

export function describePort(match: PortMatch): string {
  if (!('port' in match)) {
    const { protocol, type, code } = match;
    if (type === undefined) return protocol;
    return code === undefined ? `${protocol} type ${type}` : `${protocol} type ${type} code ${code}`;
  }
  const { protocol, port } = match;
  if ('name' in port) return `${protocol} ${port.name}`;
  if (port.from === 0 && port.to === 65535) return `every ${protocol} port`;
  return port.from === port.to ? `${protocol} ${port.from}` : `${protocol} ${port.from}-${port.to}`;
}

/** Whom a rule is about, and on which ports: `pods with app=frontend of namespace shop on TCP 7070`. */
export function describeRule({ peers, ports, requests }: Rule): string {
  const who = peers === 'any' ? 'everybody' : peers.map(describePeer).join(' or ');
  const asked = requests === undefined ? '' : ', for some requests only';
  return `${who} on ${ports === 'any' ? 'every protocol' : ports.map(describePort).join(', ')}${asked}`;
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
