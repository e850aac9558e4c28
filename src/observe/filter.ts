import { tryParseIp } from '../model/address.ts';
import { MyelinError } from '../model/error.ts';
import type { FlowEvent, FlowPeer } from '../model/flow.ts';

/** What `myelin observe` lets through; every given field must match. */
export interface FlowFilter {
  /** `namespace/name`, `namespace/` for all of it, or a bare name; either end of the flow. */
  readonly pod?: string;
  readonly from?: string;
  readonly to?: string;
  /** A namespace of either end. */
  readonly namespace?: string;
  readonly verdict?: FlowEvent['verdict'];
  /** Destination port. */
  readonly port?: number;
  /** Upper-case name, or the IP protocol's number. */
  readonly protocol?: string;
  /** An address of either end. */
  readonly address?: string;
}

const keys = ['pod', 'from', 'to', 'namespace', 'verdict', 'port', 'protocol', 'address'] as const;

/**
 * @param query Texts by field name, as they come from a URL or a command line.
 * @throws {MyelinError} `InvalidFilter`
 */
export function parseFilter(query: Readonly<Record<string, string | undefined>>): FlowFilter {
  const { verdict, port, protocol, address } = query;
  if (verdict !== undefined && verdict !== 'allow' && verdict !== 'deny')
    throw new MyelinError('InvalidFilter', `verdict is 'allow' or 'deny', not ${JSON.stringify(verdict)}`);
  if (port !== undefined && !(/^\d{1,5}$/.test(port) && Number(port) <= 65_535))
    throw new MyelinError('InvalidFilter', `port is a number up to 65535, not ${JSON.stringify(port)}`);
  if (address !== undefined && tryParseIp(address) === undefined)
    throw new MyelinError('InvalidFilter', `address is an IP address, not ${JSON.stringify(address)}`);
  return Object.fromEntries(
    keys.flatMap((key): [string, string | number][] => {
      const value = query[key];
      if (value === undefined) return [];
      return [[key, key === 'port' ? Number(value) : key === 'protocol' ? (protocol ?? '').toUpperCase() : value]];
    }),
  );
}

/** The query that `parseFilter` reads back. */
export function filterToQuery(filter: FlowFilter): Record<string, string> {
  return Object.fromEntries(Object.entries(filter).map(([key, value]) => [key, String(value)]));
}

function isPod(peer: FlowPeer, wanted: string): boolean {
  if (peer.kind !== 'pod') return peer.kind === wanted;
  const [first = '', second] = wanted.split('/');
  if (second === undefined) return peer.name === first || baseName(peer.name) === first;
  return peer.namespace === first && (second === '' || peer.name === second || baseName(peer.name) === second);
}

/** `cart-6f7d8-x2x4z` and `cart-x2x4z` are both found as `cart`: a Deployment's pods by its name. */
function baseName(podName: string): string {
  return podName.replace(/(-[a-z0-9]{5,10})?-[a-z0-9]{5}$/, '');
}

function inNamespace(peer: FlowPeer, namespace: string): boolean {
  return peer.kind === 'pod' && peer.namespace === namespace;
}

export function matchesFilter(flow: FlowEvent, filter: FlowFilter): boolean {
  const { source, destination } = flow;
  if (filter.verdict !== undefined && flow.verdict !== filter.verdict) return false;
  if (filter.port !== undefined && destination.port !== filter.port) return false;
  if (filter.protocol !== undefined && String(flow.protocol).toUpperCase() !== filter.protocol) return false;
  if (filter.address !== undefined && source.address !== filter.address && destination.address !== filter.address)
    return false;
  if (filter.pod !== undefined && !isPod(source, filter.pod) && !isPod(destination, filter.pod)) return false;
  if (filter.from !== undefined && !isPod(source, filter.from)) return false;
  if (filter.to !== undefined && !isPod(destination, filter.to)) return false;
  if (
    filter.namespace !== undefined &&
    !inNamespace(source, filter.namespace) &&
    !inNamespace(destination, filter.namespace)
  )
    return false;
  return true;
}
