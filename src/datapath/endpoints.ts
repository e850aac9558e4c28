import type { IpAddress, MacAddress } from '../model/address.ts';
import { reservedIdentity } from '../model/identity.ts';
import { type EndpointEntry, noSet } from '../policy/image.ts';
import { type Endpoint, endpointFlags } from './layouts.ts';
import type { DatapathMaps } from './objects.ts';
import { addressOfFamily } from './places.ts';
import { type Survey, surveyConnections } from './survey.ts';
import type { Transaction } from './transaction.ts';

/** The host side of a pod's link. */
export interface EndpointInterface {
  /** The pod's. */
  readonly uid: string;
  /** Index of the host side in the node's namespace. */
  readonly ifindex: number;
  /** Of the pod's side. */
  readonly mac: MacAddress;
  /** Of the host side. */
  readonly hostMac: MacAddress;
  /** The pod's own: at most one of each family. */
  readonly addresses: readonly IpAddress[];
  /** Path of the pod's network namespace, which may be gone; without, its sockets' requests are not read. */
  readonly netns?: string;
}

/** An endpoint that the datapath knows, or knew until lately. */
export interface KnownEndpoint extends EndpointInterface {
  /** Never given to another endpoint: connections are kept under it. */
  readonly id: number;
}

/** How many endpoints that are gone can still be named when their last events come in. */
const remembered = 4096;

/** Owner of the maps `endpoints`, `audits` and `local`: which interface is which pod's, and whether policy for it is loaded. */
export class EndpointTable {
  readonly #maps: Pick<DatapathMaps, 'endpoints' | 'local' | 'audits'>;
  readonly #byUid = new Map<string, KnownEndpoint>();
  readonly #byId = new Map<number, KnownEndpoint>();
  readonly #gone = new Map<number, KnownEndpoint>();
  /** Ids that the process before this one left, and that may still be made known. */
  readonly #strangers = new Set<number>();
  /** UIDs of pods that nobody believes any more: their interfaces pass nothing. */
  #revoked = new Set<string>();
  #nextId: number;

  constructor(
    maps: Pick<DatapathMaps, 'endpoints' | 'local' | 'audits' | 'connections'>,
    survey: Survey = surveyConnections(maps),
  ) {
    this.#maps = maps;
    let last = survey.lastEndpoint;
    for (const [, { id }] of maps.endpoints.entries()) {
      this.#strangers.add(id);
      last = Math.max(last, id);
    }
    this.#nextId = last + 1;
  }

  get size(): number {
    return this.#byUid.size;
  }

  all(): Iterable<KnownEndpoint> {
    return this.#byUid.values();
  }

  byUid(uid: string): KnownEndpoint | undefined {
    return this.#byUid.get(uid);
  }

  /** Also endpoints that are gone, if not for long. */
  byId(id: number): KnownEndpoint | undefined {
    return this.#byId.get(id) ?? this.#gone.get(id);
  }

  /** Whether packets can still come under the id: also an interface that is not made known yet after a restart. */
  isLive(id: number): boolean {
    return this.#byId.has(id) || this.#strangers.has(id);
  }

  /**
   * Makes an interface known. Without policy it passes nothing but what makes it known; where the maps have this very
   * interface already (the process before this one put it there), its policy stays as it is.
   * @throws {KernelError} `Errno` where a map is full: nothing is changed then but the addresses
   */
  set(info: EndpointInterface, policy: EndpointEntry | undefined): void {
    const known = this.#byUid.get(info.uid);
    if (known !== undefined && known.ifindex !== info.ifindex) this.remove(info.uid);
    const addr4 = addressOfFamily(info.addresses, 4);
    const addr6 = addressOfFamily(info.addresses, 6);
    const before = this.#maps.endpoints.get(info.ifindex);
    const same =
      before?.mac === info.mac && before.hostMac === info.hostMac && before.addr4 === addr4 && before.addr6 === addr6;
    const state = same ? before : { ...closed, id: known?.id ?? this.#nextId++ };
    const { mac, hostMac, ifindex } = info;
    // What the process before this one had closed stays closed until this one is told who is believed.
    if (same && (before.flags & endpointFlags.revoked) !== 0) this.#revoked.add(info.uid);
    const value = this.#marked(info.uid, withPolicy({ ...state, mac, hostMac, addr4, addr6 }, policy));
    if (policy?.audit !== undefined) this.#maps.audits.set(state.id, policy.audit);
    this.#maps.endpoints.set(ifindex, policy === undefined && same ? before : value);
    for (const address of info.addresses) this.#maps.local.set(address, ifindex);
    for (const address of known?.addresses ?? []) if (!info.addresses.includes(address)) this.#forget(address, ifindex);
    const endpoint = { ...info, id: state.id };
    this.#byUid.set(info.uid, endpoint);
    this.#byId.set(endpoint.id, endpoint);
  }

  /** @returns What was known of it, or undefined. */
  remove(uid: string): KnownEndpoint | undefined {
    const known = this.#byUid.get(uid);
    if (known === undefined) return undefined;
    for (const address of known.addresses) this.#forget(address, known.ifindex);
    this.#maps.endpoints.delete(known.ifindex);
    this.#maps.audits.delete(known.id);
    this.#strangers.delete(known.id);
    this.#byUid.delete(uid);
    this.#byId.delete(known.id);
    this.#gone.set(known.id, known);
    for (const id of this.#gone.keys()) {
      if (this.#gone.size <= remembered) break;
      this.#gone.delete(id);
    }
    return known;
  }

  /**
   * Closes interfaces that the maps have and nobody has made known since this process started.
   * @returns Their device indices.
   */
  removeStrangers(): number[] {
    const removed: number[] = [];
    for (const [ifindex, { id, addr4, addr6 }] of [...this.#maps.endpoints.entries()]) {
      if (this.#byId.has(id)) continue;
      for (const address of [addr4, addr6]) if (address !== undefined) this.#forget(address, ifindex);
      this.#maps.endpoints.delete(ifindex);
      removed.push(ifindex);
    }
    for (const [id] of [...this.#maps.audits.entries()]) if (!this.#byId.has(id)) this.#maps.audits.delete(id);
    this.#strangers.clear();
    return removed;
  }

  /** Changes an endpoint from its rule sets to others in one step; without policy it passes nothing any more. */
  setPolicy(transaction: Transaction, uid: string, policy: EndpointEntry | undefined): void {
    const known = this.#byUid.get(uid);
    const before = known === undefined ? undefined : this.#maps.endpoints.get(known.ifindex);
    // A pod of this node whose interface is not made yet gets its policy with it.
    if (known === undefined || before === undefined) return;
    const value = policy === undefined ? { ...before, ...closed, id: before.id } : withPolicy(before, policy);
    if (policy?.audit !== undefined) transaction.put(this.#maps.audits, before.id, policy.audit);
    transaction.put(this.#maps.endpoints, known.ifindex, this.#marked(uid, value));
    if (policy?.audit === undefined) transaction.remove(this.#maps.audits, before.id);
  }

  /**
   * Closes exactly these pods' interfaces in both directions, whatever policy says, also those that are made known later.
   * @returns The UIDs of those that were not closed before.
   */
  revoke(uids: ReadonlySet<string>): string[] {
    const before = this.#revoked;
    this.#revoked = new Set(uids);
    const added: string[] = [];
    for (const [uid, { ifindex }] of this.#byUid) {
      if (before.has(uid) === uids.has(uid)) continue;
      const endpoint = this.#maps.endpoints.get(ifindex);
      if (endpoint === undefined) continue;
      this.#maps.endpoints.set(ifindex, this.#marked(uid, endpoint));
      if (uids.has(uid)) added.push(uid);
    }
    return added;
  }

  #marked(uid: string, endpoint: Endpoint): Endpoint {
    const flags = endpoint.flags & ~endpointFlags.revoked;
    return { ...endpoint, flags: this.#revoked.has(uid) ? flags | endpointFlags.revoked : flags };
  }

  #forget(address: IpAddress, ifindex: number): void {
    // Another pod may have been given the address since.
    if (this.#maps.local.get(address) === ifindex) this.#maps.local.delete(address);
  }
}

const { any } = reservedIdentity;
const closed = {
  identity4: any,
  identity6: any,
  ingressAdminSet: noSet,
  ingressSet: noSet,
  ingressMeshSet: noSet,
  egressAdminSet: noSet,
  egressSet: noSet,
  egressMeshSet: noSet,
  flags: 0,
  names: 0,
} as const;

function withPolicy(endpoint: Endpoint, policy: EndpointEntry | undefined): Endpoint {
  if (policy === undefined) return endpoint;
  const { addresses: _, audit, ...identitiesAndSets } = policy;
  const flags = (endpoint.flags & ~endpointFlags.audited) | (audit === undefined ? 0 : endpointFlags.audited);
  return { ...endpoint, ...identitiesAndSets, flags: flags | endpointFlags.ready };
}
