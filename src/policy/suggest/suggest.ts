import { familyOf } from '../../model/address.ts';
import type { FlowEvent } from '../../model/flow.ts';
import { hostPrefix } from '../../model/prefix.ts';
import type { Direction } from '../../model/verdict.ts';
import { type Connection, connectionsOf, endKey, endName, type SeenEnd } from './connections.ts';
import { type PodGroup, PodGroups } from './groups.ts';

type Labels = Readonly<Record<string, string>>;

/** A peer of a NetworkPolicy, in the API's own words. */
export interface SuggestedPeer {
  readonly podSelector?: { readonly matchLabels: Labels };
  readonly namespaceSelector?: { readonly matchLabels: Labels };
  readonly ipBlock?: { readonly cidr: string };
}
export interface SuggestedPort {
  readonly protocol: string;
  readonly port: number;
}

/** One rule, and what it is for. */
export interface SuggestedRule {
  readonly peers: readonly SuggestedPeer[];
  readonly ports: readonly SuggestedPort[];
  /** `12 × shop/front-x2x4z → shop/cart-7k9qp TCP 7070`. */
  readonly reasons: readonly string[];
}

export interface Suggestion {
  readonly namespace: string;
  readonly name: string;
  readonly labels: Labels;
  readonly directions: readonly Direction[];
  readonly ingress: readonly SuggestedRule[];
  readonly egress: readonly SuggestedRule[];
}

export interface Suggestions {
  readonly policies: readonly Suggestion[];
  /** What was seen and is in no rule, and why: one line each. */
  readonly leftOut: readonly string[];
}

export interface SuggestOptions {
  /** Only policies for pods of this namespace. */
  readonly namespace?: string;
  /** Default: both. */
  readonly directions?: readonly Direction[];
  /** Denied connections are wanted too: to find out what a policy that is too narrow should have. */
  readonly includeDenied?: boolean;
}

/** More addresses than these that ask for the same become everybody. */
const mostAddresses = 8;

/**
 * The least that NetworkPolicies must allow for what was seen to go on: one policy for each workload that took part,
 * a rule for all peers of which the same ports were seen. Pure, and the same for the same flows in any order of pods.
 * @param pods Those there are: their labels are what policies know them by.
 */
export function suggest(
  flows: Iterable<FlowEvent>,
  pods: ConstructorParameters<typeof PodGroups>[0],
  { namespace, directions = ['ingress', 'egress'], includeDenied = false }: SuggestOptions = {},
): Suggestions {
  const groups = new PodGroups(pods);
  const leftOut = new Set<string>();
  const drafts = new Map<PodGroup, Draft>();
  const draftOf = (group: PodGroup): Draft => {
    const draft = drafts.get(group) ?? { ingress: new Map(), egress: new Map() };
    drafts.set(group, draft);
    return draft;
  };
  const leave = (connection: Connection, why: string): void => void leftOut.add(`${describe(connection)}: ${why}`);
  for (const connection of connectionsOf(flows)) {
    const { source, destination, protocol, node } = connection;
    if (endKey(source, node) === endKey(destination, node)) continue;
    if (connection.denied && !includeDenied) {
      leave(connection, 'it was denied');
      continue;
    }
    if (protocol !== 'TCP' && protocol !== 'UDP' && protocol !== 'SCTP') {
      leave(connection, `a NetworkPolicy has no word for ${protocol}: only a rule without ports would allow it`);
      continue;
    }
    for (const direction of directions) {
      const [own, peer] = direction === 'ingress' ? [destination, source] : [source, destination];
      if (own.kind !== 'pod' || (namespace !== undefined && own.namespace !== namespace)) continue;
      // A pod's own node reaches it always.
      if (direction === 'ingress' && isOwnNode(own, peer, node)) continue;
      const group = groups.of(own.namespace, own.name);
      const asked = group === undefined ? undefined : peerOf(peer, group, groups);
      if (group === undefined) leave(connection, `nothing tells ${own.namespace}/${own.name} from other pods`);
      else if (asked === undefined) leave(connection, `nobody knows who ${endName(peer, node)} is`);
      else note(draftOf(group)[direction], asked, connection);
    }
  }
  return { policies: finish(drafts, directions), leftOut: [...leftOut].sort() };
}

interface Asked {
  readonly peer: SuggestedPeer;
  readonly address?: SeenEnd['address'];
  readonly connections: Connection[];
}
/** By peer. */
interface Draft {
  readonly ingress: Map<string, Asked>;
  readonly egress: Map<string, Asked>;
}

function note(side: Map<string, Asked>, { peer, address }: PeerOf, connection: Connection): void {
  const key = JSON.stringify(peer);
  const asked = side.get(key);
  if (asked !== undefined) asked.connections.push(connection);
  else side.set(key, { peer, connections: [connection], ...(address === undefined ? {} : { address }) });
}

function isOwnNode(own: SeenEnd, peer: SeenEnd, node: string): boolean {
  if (own.kind !== 'pod') return false;
  return (peer.kind === 'host' && own.node === node) || (peer.kind === 'node' && peer.name === own.node);
}

type PeerOf = Pick<Asked, 'peer' | 'address'>;

function peerOf(end: SeenEnd, subject: PodGroup, groups: PodGroups): PeerOf | undefined {
  if (end.kind === 'unknown') return undefined;
  if (end.kind !== 'pod') return { peer: { ipBlock: { cidr: hostPrefix(end.address) } }, address: end.address };
  const group = groups.of(end.namespace, end.name);
  if (group === undefined) return undefined;
  const podSelector = { matchLabels: group.labels };
  if (group.namespace === subject.namespace) return { peer: { podSelector } };
  return {
    peer: { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': group.namespace } }, podSelector },
  };
}

function finish(drafts: ReadonlyMap<PodGroup, Draft>, directions: readonly Direction[]): Suggestion[] {
  const taken = new Set<string>();
  const order = [...drafts].sort(([a], [b]) => compare(keyOf(a), keyOf(b)));
  return order.map(([group, draft]) => {
    const base =
      group.title
        .toLowerCase()
        .replace(/[^a-z0-9-]+/g, '-')
        .replace(/^-+|-+$/g, '') || 'pods';
    let name = base;
    for (let i = 2; taken.has(`${group.namespace}/${name}`); i++) name = `${base}-${i}`;
    taken.add(`${group.namespace}/${name}`);
    const { namespace, labels } = group;
    return { namespace, name, labels, directions, ingress: rulesOf(draft.ingress), egress: rulesOf(draft.egress) };
  });
}

function keyOf({ namespace, title, labels }: PodGroup): string {
  return `${namespace} ${title} ${JSON.stringify(labels)}`;
}

/** Peers of which the same ports were seen share a rule. */
function rulesOf(side: ReadonlyMap<string, Asked>): SuggestedRule[] {
  const byPorts = new Map<string, { ports: SuggestedPort[]; asked: Asked[] }>();
  for (const asked of side.values()) {
    const ports = portsOf(asked.connections);
    const key = JSON.stringify(ports);
    const rule = byPorts.get(key);
    if (rule === undefined) byPorts.set(key, { ports, asked: [asked] });
    else rule.asked.push(asked);
  }
  const rules = [...byPorts.values()].map(({ ports, asked }) => ({
    ports,
    peers: peersOf(asked),
    reasons: asked.flatMap(({ connections }) => connections.map(describe)).sort(compare),
  }));
  return rules.sort((a, b) => compare(JSON.stringify([a.ports, a.peers]), JSON.stringify([b.ports, b.peers])));
}

function portsOf(connections: readonly Connection[]): SuggestedPort[] {
  const ports = new Map(
    connections.map(({ protocol, port }) => [`${protocol} ${port}`, { protocol: String(protocol), port }]),
  );
  return [...ports.values()].sort((a, b) => compare(a.protocol, b.protocol) || a.port - b.port);
}

function peersOf(asked: readonly Asked[]): SuggestedPeer[] {
  const pods = asked.filter(({ address }) => address === undefined).map(({ peer }) => peer);
  const blocks = ([4, 6] as const).flatMap((family) => {
    const own = asked.filter(({ address }) => address !== undefined && familyOf(address) === family);
    if (own.length <= mostAddresses) return own.map(({ peer }) => peer);
    return [{ ipBlock: { cidr: family === 4 ? '0.0.0.0/0' : '::/0' } }];
  });
  return [...pods, ...blocks].sort((a, b) => compare(JSON.stringify(a), JSON.stringify(b)));
}

function describe({ source, destination, protocol, port, count, node }: Connection): string {
  const at = port === 0 ? '' : ` ${port}`;
  return `${count} × ${endName(source, node)} → ${endName(destination, node)} ${protocol}${at}`;
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
