import type { Logger } from 'pino';
import { KernelError } from '../kernel/error.ts';
import { waitForPackets } from '../kernel/rcu.ts';
import type { IpAddress } from '../model/address.ts';
import { type Protocol, protocolNumbers } from '../model/port.ts';
import { RevisionRefused } from './error.ts';
import { fixedRoom, type Need, type Room } from './growth/capacity.ts';
import { type ServiceEnd, type ServiceKey, serviceFlowFlags } from './layouts.ts';
import type { DatapathMaps } from './objects.ts';
import { arrangeSlots } from './slots.ts';
import { type Survey, surveyConnections } from './survey.ts';
import { Transaction } from './transaction.ts';

export interface TransportAddress {
  readonly address: IpAddress;
  readonly port: number;
}

/** One address and port of a Service, and what stands behind it. */
export interface ServiceFront {
  /** `namespace/name:port`, as telemetry shows it. */
  readonly name: string;
  readonly protocol: Protocol;
  readonly front: TransportAddress;
  /** None: connections are refused (NO_SERVICE_BACKEND). */
  readonly backends: readonly TransportAddress[];
}

/** A service as it is in force. */
export interface ServiceHere {
  /** `namespace/name:port`. */
  readonly name: string;
  readonly backends: readonly TransportAddress[];
}

interface Installed {
  readonly id: number;
  readonly key: ServiceKey;
  /** By slot. */
  readonly backends: readonly TransportAddress[];
  readonly name: string | undefined;
}

type ServiceMaps = Pick<DatapathMaps, 'services' | 'backends' | 'serviceFronts' | 'serviceFlows' | 'connections'>;

/** How many services that are gone can still be named when events of their last connections come in. */
const remembered = 1024;

/** Owner of the maps of services. At every moment each slot that a packet can draw holds a backend. */
export class ServiceTable {
  readonly #maps: ServiceMaps;
  readonly #log: Pick<Logger, 'warn'> | undefined;
  readonly #room: Room;
  #installed: Map<string, Installed>;
  readonly #names = new Map<number, string>();
  #nextId: number;
  #cleanup: Promise<void> = Promise.resolve();

  constructor(
    maps: ServiceMaps,
    log?: Pick<Logger, 'warn'>,
    survey: Survey = surveyConnections(maps),
    room: Room = fixedRoom,
  ) {
    this.#maps = maps;
    this.#log = log;
    this.#room = room;
    this.#installed = restore(maps);
    // Ids that connections still refer to are not given away.
    let last = survey.lastService;
    for (const { id } of this.#installed.values()) last = Math.max(last, id);
    for (const [id] of maps.serviceFronts.entries()) last = Math.max(last, id);
    for (const [, { service }] of maps.serviceFlows.entries()) last = Math.max(last, service);
    this.#nextId = last + 1;
  }

  get size(): number {
    return this.#installed.size;
  }

  /** How many backends all of them have together. */
  get backends(): number {
    let count = 0;
    for (const { backends } of this.#installed.values()) count += backends.length;
    return count;
  }

  /** Resolves when nothing of removed services is in the maps any more. */
  get settled(): Promise<void> {
    return this.#cleanup;
  }

  /** @returns The name of a service, also of one that is gone, if not for long. */
  nameOf(id: number): string | undefined {
    return this.#names.get(id);
  }

  /** @returns What connections to an address and port are translated to, or undefined where no service stands there. */
  at(front: TransportAddress, protocol: Protocol): ServiceHere | undefined {
    const { name, backends } = this.#installed.get(keyText({ ...front, protocol: protocolNumbers[protocol] })) ?? {};
    return backends === undefined ? undefined : { name: name ?? 'of unknown name', backends };
  }

  /**
   * Makes `fronts` all the services there are. Backends that stay keep their slots; connections keep their backends, but
   * for UDP flows to a backend that is gone.
   * @throws {RevisionRefused} `ServicesRefused`: the services are as they were
   */
  async apply(fronts: readonly ServiceFront[]): Promise<void> {
    await this.#cleanup;
    const next = new Map<string, Installed>();
    for (const front of fronts) {
      const key = keyOf(front);
      const text = keyText(key);
      const old = this.#installed.get(text);
      const id = old?.id ?? this.#nextId++;
      next.set(text, { id, key, backends: arrangeSlots(old?.backends ?? [], front.backends), name: front.name });
    }
    const needs = this.#needs(next);
    await this.#room.make(needs);
    this.#refuseOverflow(needs);
    const gone = [...this.#installed].filter(([text]) => !next.has(text)).map(([, service]) => service);
    const shrunk: Installed[] = [];
    const transaction = new Transaction();
    try {
      for (const [text, service] of next) {
        const old = this.#installed.get(text);
        this.#write(transaction, old, service);
        if (old?.backends.some((backend) => !holds(service.backends, backend)) === true) shrunk.push(service);
      }
      for (const { key } of gone) transaction.remove(this.#maps.services, key);
    } catch (error) {
      if (transaction.rollback().length > 0) this.#installed = restore(this.#maps);
      if (!(error instanceof KernelError)) throw error;
      throw this.#refusal(error);
    }
    const before = this.#installed;
    this.#installed = next;
    this.#remember(next.values());
    this.#forgetFlows(
      new Map([...shrunk, ...gone.map((service) => ({ ...service, backends: [] }))].map((s) => [s.id, s])),
    );
    this.#cleanup = this.#cleanUp(before, gone);
  }

  /** Backends first, then where replies come from, then the service, whose count makes them reachable. */
  #write(transaction: Transaction, old: Installed | undefined, service: Installed): void {
    const { id, key, backends } = service;
    const { serviceFronts, services } = this.#maps;
    for (const [slot, backend] of backends.entries())
      if (!sameEnd(old?.backends[slot], backend)) transaction.put(this.#maps.backends, { service: id, slot }, backend);
    if (old === undefined) transaction.put(serviceFronts, id, { address: key.address, port: key.port });
    if (old?.backends.length !== backends.length) transaction.put(services, key, { id, count: backends.length });
  }

  /** UDP has no end: a flow would go on to its lost backend for as long as the client talks. */
  #forgetFlows(services: ReadonlyMap<number, Installed>): void {
    if (services.size === 0) return;
    for (const [key, flow] of [...this.#maps.serviceFlows.entries()]) {
      const service = services.get(flow.service);
      if (service === undefined || key.protocol !== protocolNumbers.UDP) continue;
      // The reply way of a pod that reaches itself through its service has the service's address, not a backend's.
      if ((flow.flags & serviceFlowFlags.hairpinReply) === 0 && !holds(service.backends, flow))
        this.#maps.serviceFlows.delete(key);
    }
  }

  async #cleanUp(before: ReadonlyMap<string, Installed>, gone: readonly Installed[]): Promise<void> {
    try {
      const surplus = [...before].flatMap(([text, { id, backends }]) => {
        const kept = this.#installed.get(text)?.backends.length ?? 0;
        return backends.slice(kept).map((_, i) => ({ service: id, slot: kept + i }));
      });
      if (surplus.length === 0 && gone.length === 0) return;
      // A packet may have read the old count and be about to draw one of these slots.
      await waitForPackets();
      for (const key of surplus) this.#maps.backends.delete(key);
      for (const { id } of gone) this.#maps.serviceFronts.delete(id);
    } catch (error) {
      this.#log?.warn({ error }, 'backends of services that are gone could not be removed');
    }
  }

  #remember(services: Iterable<Installed>): void {
    for (const { id, name } of services) {
      if (name === undefined || this.#names.get(id) === name) continue;
      this.#names.set(id, name);
    }
    const live = new Set([...this.#installed.values()].map(({ id }) => id));
    for (const id of this.#names.keys()) {
      if (this.#names.size <= live.size + remembered) break;
      if (!live.has(id)) this.#names.delete(id);
    }
  }

  /** For a moment what was there and what will be are both there. */
  #needs(next: ReadonlyMap<string, Installed>): Need[] {
    const fronts = this.#installed.size + [...next].filter(([text]) => !this.#installed.has(text)).length;
    const slots = [...next].reduce(
      (sum, [text, { backends }]) => sum + Math.max(backends.length, this.#installed.get(text)?.backends.length ?? 0),
      [...this.#installed].reduce((sum, [text, { backends }]) => sum + (next.has(text) ? 0 : backends.length), 0),
    );
    const { services, serviceFronts, backends } = this.#maps;
    return [
      { map: services.name, entries: fronts },
      { map: serviceFronts.name, entries: fronts },
      { map: backends.name, entries: slots },
    ];
  }

  #refuseOverflow(needs: readonly Need[]): void {
    const maps = Object.values(this.#maps);
    for (const { map, entries: needed } of needs) {
      const capacity = maps.find(({ name }) => name === map)?.capacity ?? 0;
      if (needed > capacity) throw new RevisionRefused('ServicesRefused', { map, needed, capacity });
    }
  }

  #refusal(error: KernelError): RevisionRefused {
    const name = String(error.data.map);
    const capacity = Object.values(this.#maps).find((map) => map.name === name)?.capacity ?? 0;
    const full = error.errno === 'E2BIG' || error.errno === 'ENOSPC';
    return new RevisionRefused(
      'ServicesRefused',
      { map: name, needed: full ? capacity + 1 : capacity, capacity },
      error,
    );
  }
}

/** What the process before this one left. Slots beyond a service's count, and fronts without service, are its leftovers. */
function restore(maps: ServiceMaps): Map<string, Installed> {
  const slots = new Map<number, Map<number, ServiceEnd>>();
  for (const [{ service, slot }, end] of maps.backends.entries()) {
    const known = slots.get(service) ?? new Map<number, ServiceEnd>();
    slots.set(service, known.set(slot, end));
  }
  const installed = new Map<string, Installed>();
  const counts = new Map<number, number>();
  for (const [key, { id, count }] of maps.services.entries()) {
    const ends = Array.from({ length: count }, (_, slot) => slots.get(id)?.get(slot));
    const present = ends.filter((end) => end !== undefined);
    // With a slot missing, all of them are written anew.
    installed.set(keyText(key), { id, key, backends: present.length === count ? present : [], name: undefined });
    counts.set(id, count);
  }
  for (const [service, known] of slots)
    for (const slot of known.keys()) if (slot >= (counts.get(service) ?? 0)) maps.backends.delete({ service, slot });
  for (const [id] of [...maps.serviceFronts.entries()]) if (!counts.has(id)) maps.serviceFronts.delete(id);
  return installed;
}

function keyOf({ front, protocol }: ServiceFront): ServiceKey {
  return { ...front, protocol: protocolNumbers[protocol] };
}

function keyText({ address, port, protocol }: ServiceKey): string {
  return `${protocol} ${address} ${port}`;
}

function sameEnd(a: TransportAddress | undefined, b: TransportAddress): boolean {
  return a?.address === b.address && a.port === b.port;
}

function holds(backends: readonly TransportAddress[], backend: TransportAddress): boolean {
  return backends.some((other) => sameEnd(other, backend));
}
