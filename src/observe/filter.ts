import { tryParseIp } from '../model/address.ts';
import { MyelinError } from '../model/error.ts';
import type { FlowEvent, FlowPeer } from '../model/flow.ts';
import { protocolFromNumber, protocolNumbers } from '../model/port.ts';

/** What `myelin observe` lets through; every given field must match. */
export interface FlowFilter {
  /** `namespace/name`, `namespace/` for all of it, or a bare name; either end of the flow. */
  readonly pod?: string;
  readonly from?: string;
  readonly to?: string;
  /** A namespace of either end. */
  readonly namespace?: string;
  /** `audit`: what passes, and audited policies would deny. */
  readonly verdict?: FlowEvent['verdict'] | 'audit';
  /** Destination port. */
  readonly port?: number;
  /** As flows have it: the name where it has one, else the IP protocol's number. */
  readonly protocol?: string;
  /** An address of either end. */
  readonly address?: string;
  /** `only`: HTTP requests. Without, everything else. */
  readonly http?: 'only';
}

const keys = ['pod', 'from', 'to', 'namespace', 'verdict', 'port', 'protocol', 'address', 'http'] as const;

/**
 * @param query Texts by field name, as they come from a URL or a command line.
 * @throws {MyelinError} `InvalidFilter`
 */
export function parseFilter(query: Readonly<Record<string, string | undefined>>): FlowFilter {
  const { verdict, port, address, http } = query;
  if (verdict !== undefined && verdict !== 'allow' && verdict !== 'deny' && verdict !== 'audit')
    throw new MyelinError('InvalidFilter', `verdict is 'allow', 'deny' or 'audit', not ${JSON.stringify(verdict)}`);
  if (http !== undefined && http !== 'only')
    throw new MyelinError('InvalidFilter', `http is 'only', not ${JSON.stringify(http)}`);
  if (port !== undefined && !(/^\d{1,5}$/.test(port) && Number(port) <= 65_535))
    throw new MyelinError('InvalidFilter', `port is a number up to 65535, not ${JSON.stringify(port)}`);
  const ip = address === undefined ? undefined : tryParseIp(address);
  if (address !== undefined && ip === undefined)
    throw new MyelinError('InvalidFilter', `address is an IP address, not ${JSON.stringify(address)}`);
  const meant: Readonly<Record<string, string | number | undefined>> = {
    ...query,
    port: port === undefined ? undefined : Number(port),
    protocol: query.protocol === undefined ? undefined : parseProtocol(query.protocol),
    address: ip,
  };
  return Object.fromEntries(
    keys.flatMap((key): [string, string | number][] => {
      const value = meant[key];
      return value === undefined ? [] : [[key, value]];
    }),
  );
}

/** @throws {MyelinError} `InvalidFilter` */
function parseProtocol(text: string): string {
  const number = /^\d{1,3}$/.test(text) && Number(text) <= 255 ? Number(text) : undefined;
  if (number !== undefined) return protocolFromNumber(number) ?? String(number);
  const names = Object.keys(protocolNumbers);
  const name = names.find((each) => each.toUpperCase() === text.toUpperCase());
  if (name !== undefined) return name;
  throw new MyelinError(
    'InvalidFilter',
    `protocol is ${names.join(', ')} or a number up to 255, not ${JSON.stringify(text)}`,
  );
}

/**
 * How many past flows are wanted.
 * @throws {MyelinError} `InvalidFilter`
 */
export function parseLast(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new MyelinError('InvalidFilter', `last is a number of flows, not ${JSON.stringify(text)}`);
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
  if ((flow.http !== undefined) !== (filter.http === 'only')) return false;
  const verdict = flow.kind === 'audit' ? 'audit' : flow.verdict;
  if (filter.verdict !== undefined && verdict !== filter.verdict) return false;
  if (filter.port !== undefined && destination.port !== filter.port) return false;
  if (filter.protocol !== undefined && String(flow.protocol) !== filter.protocol) return false;
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
