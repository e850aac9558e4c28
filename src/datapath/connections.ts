import { setImmediate as breathe } from 'node:timers/promises';
import { type Family, familyOf, type IpAddress, parseIp } from '../model/address.ts';
import { type IdentityNumber, reservedIdentity } from '../model/identity.ts';
import type { Direction } from '../model/verdict.ts';
import type { EndpointTable, KnownEndpoint } from './endpoints.ts';
import { type DatapathEvent, directionOf, unixTime } from './events.ts';
import { type CtEntry, type CtKey, ctEntry, ctKey, ctStates } from './layouts.ts';
import type { DatapathMaps } from './objects.ts';
import { addressOfFamily } from './places.ts';

export type ConnectionState = 'opening' | 'established' | 'half-closed' | 'closed';

/** A tracked connection, seen from one of its endpoints on this node. */
export interface Connection {
  /** Id of the endpoint. */
  readonly endpoint: number;
  readonly protocol: number;
  /** Who opened it, seen from the endpoint. */
  readonly direction: Direction;
  /** Undefined where the endpoint is not known any more. */
  readonly local: IpAddress | undefined;
  readonly localPort: number;
  readonly remote: IpAddress;
  readonly remotePort: number;
  readonly remoteIdentity: IdentityNumber;
  readonly state: ConnectionState;
  /** Of the originator, and of the other side. */
  readonly packets: readonly [number, number];
  readonly bytes: readonly [number, number];
  readonly rule: number;
  /** Of the policy that it was last judged by. */
  readonly revision: number;
  readonly service: number;
  /** Milliseconds; negative where it has expired and is not collected yet. */
  readonly expiresIn: number;
}

export interface Collected {
  /** Entries that were looked at. */
  readonly seen: number;
  readonly removed: number;
}

/** A full table takes some hundred milliseconds to go through: after so many, the event loop has its turn. */
const turnMs = 5;
/** How many entries are looked at between two looks at the clock. */
const portion = 128;
const keyPart = ctKey.only('endpoint');
const entryPart = ctEntry.only('expiresNs');
/** The kernel's coarse clock, by which entries expire, lags behind by a few milliseconds. */
const slackNs = 100_000_000n;

/** Reads the connection table and removes what has expired. The kernel fills it, and forgets the longest unused when it is full. */
export class ConnectionTable {
  readonly #map: DatapathMaps['connections'];
  readonly #endpoints: EndpointTable;
  readonly #identityOf: (endpoint: KnownEndpoint, family: Family) => IdentityNumber;
  #count = 0;

  /** @param identityOf Who a pod is, by the family of its address; `any` where that is not known any more. */
  constructor(
    maps: Pick<DatapathMaps, 'connections'>,
    endpoints: EndpointTable,
    identityOf: (endpoint: KnownEndpoint, family: Family) => IdentityNumber,
  ) {
    this.#map = maps.connections;
    this.#endpoints = endpoints;
    this.#identityOf = identityOf;
  }

  /** Entries there were after the last collection. */
  get lastCount(): number {
    return this.#count;
  }

  /** All connections; those that change meanwhile may or may not be seen. */
  *all(): Generator<Connection> {
    const now = process.hrtime.bigint();
    for (const [key, entry] of this.#map.entries()) yield describe(key, entry, now, this.#endpoints.byId(key.endpoint));
  }

  /**
   * Removes connections that have expired, and those of endpoints that are gone.
   * @param onEnd Called for each whose end the datapath has not reported itself, as it does for those that closed.
   * @param signal Ends the collection early.
   */
  async collect(onEnd: (event: DatapathEvent) => void, signal?: AbortSignal): Promise<Collected> {
    let seen = 0;
    let removed = 0;
    let turn = performance.now();
    for (const [{ endpoint }, { expiresNs }, rawKey] of this.#map.scan(keyPart, entryPart)) {
      if (++seen % portion === 0 && performance.now() - turn > turnMs) {
        await breathe();
        if (signal?.aborted === true) break;
        turn = performance.now();
      }
      if (!this.#isOver(endpoint, expiresNs)) continue;
      const key = ctKey.decode(rawKey);
      const last = this.#map.take(key);
      if (last === undefined) continue;
      if (!this.#isOver(endpoint, last.expiresNs)) {
        // A packet came in between. It goes back, unless a further packet has made it anew.
        if (this.#map.get(key) === undefined) this.#map.set(key, last);
        continue;
      }
      removed++;
      if (last.state === ctStates.closed) continue;
      const known = this.#endpoints.byId(endpoint);
      const identity = known === undefined ? reservedIdentity.any : this.#identityOf(known, familyOf(key.remote));
      onEnd(endOf(key, last, known, identity));
    }
    this.#count = seen - removed;
    return { seen, removed };
  }

  #isOver(endpoint: number, expiresNs: bigint): boolean {
    return expiresNs + slackNs < process.hrtime.bigint() || !this.#endpoints.isLive(endpoint);
  }
}

function describe(key: CtKey, entry: CtEntry, now: bigint, endpoint: KnownEndpoint | undefined): Connection {
  const numbers = ([a, b]: readonly [bigint, bigint]): [number, number] => [Number(a), Number(b)];
  return {
    endpoint: key.endpoint,
    protocol: key.protocol,
    direction: directionOf(entry.direction),
    local: localAddress(key, endpoint),
    localPort: key.localPort,
    remote: key.remote,
    remotePort: key.remotePort,
    remoteIdentity: entry.remoteIdentity,
    state: stateOf(entry.state),
    packets: numbers(entry.packets),
    bytes: numbers(entry.bytes),
    rule: entry.rule,
    revision: entry.revision,
    service: entry.service,
    expiresIn: Number(entry.expiresNs - now) / 1e6,
  };
}

function stateOf(code: number): ConnectionState {
  if (code === ctStates.established) return 'established';
  if (code === ctStates.halfClosed) return 'half-closed';
  return code === ctStates.closed ? 'closed' : 'opening';
}

function localAddress({ remote }: CtKey, endpoint: KnownEndpoint | undefined): IpAddress | undefined {
  return endpoint === undefined ? undefined : addressOfFamily(endpoint.addresses, familyOf(remote));
}

/** The event that the datapath would have sent, had it noticed the end. */
function endOf(
  key: CtKey,
  entry: CtEntry,
  endpoint: KnownEndpoint | undefined,
  identity: IdentityNumber,
): DatapathEvent {
  const now = process.hrtime.bigint();
  const direction = directionOf(entry.direction);
  const local = {
    address: localAddress(key, endpoint) ?? parseIp(familyOf(key.remote) === 4 ? '0.0.0.0' : '::'),
    port: key.localPort,
    identity,
  };
  const remote = { address: key.remote, port: key.remotePort, identity: entry.remoteIdentity };
  return {
    kind: 'end',
    time: unixTime(now),
    direction,
    verdict: 'allow',
    protocol: key.protocol,
    tcpFlags: entry.tcpFlags[0] | entry.tcpFlags[1],
    endpoint: key.endpoint,
    ifindex: endpoint?.ifindex ?? 0,
    rule: entry.rule,
    source: direction === 'egress' ? local : remote,
    destination: direction === 'egress' ? remote : local,
    service: entry.service,
    packets: Number(entry.packets[0] + entry.packets[1]),
    bytes: Number(entry.bytes[0] + entry.bytes[1]),
    durationNs: Number(now - entry.createdNs),
  };
}
