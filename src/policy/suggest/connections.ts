import type { FlowEvent, FlowPeer } from '../../model/flow.ts';
import type { Direction } from '../../model/verdict.ts';

export type SeenEnd = FlowPeer & Pick<FlowEvent['source'], 'address'>;

/** All connections of one sort that were seen: who to whom, by which protocol, to which port. */
export interface Connection {
  readonly source: SeenEnd;
  readonly destination: SeenEnd;
  readonly protocol: FlowEvent['protocol'];
  readonly port: number;
  /** At least so many. */
  readonly count: number;
  /** Unix time, milliseconds. */
  readonly first: number;
  readonly last: number;
  /** Whether one side denied it and never let it pass. */
  readonly denied: boolean;
  /** The node that saw it, which a `host` end is. */
  readonly node: string;
}

interface Tally {
  readonly connection: Connection;
  readonly opened: Record<Direction, number>;
  readonly allowed: Set<Direction>;
  readonly denied: Set<Direction>;
  first: number;
  last: number;
}

/** A text that is equal for equal ends; whoever has a name is known by it, whatever the address. */
export function endKey(end: SeenEnd, node: string): string {
  if (end.kind === 'pod') return `pod ${end.namespace}/${end.name}`;
  if (end.kind === 'node') return `node ${end.name}`;
  return end.kind === 'host' ? `node ${node}` : `${end.kind} ${end.address}`;
}

/** `shop/cart`, `node node-1`, `203.0.113.9`. */
export function endName(end: SeenEnd, node: string): string {
  if (end.kind === 'pod') return `${end.namespace}/${end.name}`;
  return end.kind === 'world' || end.kind === 'unknown' ? end.address : endKey(end, node);
}

/** Joins what both sides of a connection, and all events about it, say. In the order in which they were first seen. */
export function connectionsOf(flows: Iterable<FlowEvent>): Connection[] {
  const tallies = new Map<string, Tally>();
  for (const flow of flows) {
    const { source, destination, protocol, node, direction, time } = flow;
    // The ports of ICMP are an identifier: no two pings are of one sort by them.
    const port = protocol === 'ICMP' || protocol === 'ICMPv6' ? 0 : destination.port;
    const key = `${endKey(source, node)} ${endKey(destination, node)} ${protocol} ${port}`;
    const tally = tallies.get(key) ?? {
      connection: { source, destination, protocol, port, node, count: 0, first: time, last: time, denied: false },
      opened: { egress: 0, ingress: 0 },
      allowed: new Set<Direction>(),
      denied: new Set<Direction>(),
      first: time,
      last: time,
    };
    tallies.set(key, tally);
    if (flow.kind === 'new' || flow.kind === 'deny') tally.opened[direction]++;
    tally[flow.verdict === 'allow' ? 'allowed' : 'denied'].add(direction);
    tally.first = Math.min(tally.first, time);
    tally.last = Math.max(tally.last, time);
  }
  return [...tallies.values()].map(({ connection, opened, allowed, denied, first, last }) => ({
    ...connection,
    first,
    last,
    count: Math.max(1, opened.egress, opened.ingress),
    denied: [...denied].some((direction) => !allowed.has(direction)),
  }));
}
