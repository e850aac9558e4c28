import type { Logger } from 'pino';
import { queryTc, type TcDirection } from '../kernel/bpf/tc.ts';
import { KernelError } from '../kernel/error.ts';
import type { IpAddress } from '../model/address.ts';
import { reservedIdentity } from '../model/identity.ts';
import type { Protocol } from '../model/port.ts';
import type { PolicyImage } from '../policy/image.ts';
import { type Collected, type Connection, ConnectionTable } from './connections.ts';
import { type EndpointInterface, EndpointTable, type KnownEndpoint } from './endpoints.ts';
import { evaluateMaps, type MapQuery, type MapVerdict } from './evaluate.ts';
import { type DatapathEvent, EventReader } from './events.ts';
import { Attachments } from './growth/attachments.ts';
import type { Need } from './growth/capacity.ts';
import { openGrowth } from './growth/generations.ts';
import type { GrowthStep, MapGrowth } from './growth/growth.ts';
import { type Usage, usageOf } from './growth/usage.ts';
import { HttpReader, type RequestEvents } from './http/reader.ts';
import { type Config, configFlags, type Tunnel, type TunnelKey } from './layouts.ts';
import { type LearntName, LearntNames } from './learnt.ts';
import { type DatapathMetrics, readMetrics } from './metrics.ts';
import { type DatapathObjects, loadObjects, type ObjectOptions, type ProgramName } from './objects.ts';
import { type AppliedRevision, type ApplyOptions, PolicyTable } from './policy-table.ts';
import { type ProxyClient, type ProxyMode, type ProxyPort, ProxyPorts } from './proxy/ports.ts';
import { type ServiceFront, type ServiceHere, ServiceTable, type TransportAddress } from './services.ts';
import { surveyConnections } from './survey.ts';
import { PathTable, type TunnelProof, TunnelTable } from './tunnels.ts';

export interface DatapathDeps {
  readonly log?: Pick<Logger, 'warn' | 'info'>;
  /** Called after each step of making maps larger. */
  readonly onGrowth?: (step: GrowthStep) => void;
  /** Called for every event of the datapath, and for the ends of connections that are collected. */
  readonly onEvent?: (event: DatapathEvent) => void;
}

/** What the programs go by; members that are not given stay as they are. Times in nanoseconds, 0 for the default. */
export type DatapathSettings = Partial<
  Omit<Config, 'revision' | 'flags'> & {
    /** Tunnels are the kernel's: packets out of them carry the kernel's proof of the SA. */
    readonly xfrm: boolean;
    /** Tunnels go over from the engine to the kernel, or back: what the engine opened is let in beside the kernel's. */
    readonly changing: boolean;
    /** Ports that HTTP/2 comes to are noted for the proxy, also while there is none. */
    readonly proxyLearn: boolean;
  }
>;

/** Telemetry that did not get through, since the maps were made (`ring`) or this process started. */
export interface Losses {
  /** Events that found the ring full. */
  readonly ring: number;
  /** Events that this version could not read. */
  readonly undecodable: number;
}

/**
 * The typed owner of the datapath: programs, maps and what is in them. There is one per node and pin directory. It never
 * detaches anything: without it, the programs go on enforcing what they were told last.
 * Everything acts in this process's network namespace.
 */
export class Datapath {
  readonly #objects: DatapathObjects;
  readonly #endpoints: EndpointTable;
  readonly #tunnels: TunnelTable;
  readonly #paths: PathTable;
  readonly #policy: PolicyTable;
  readonly #names: LearntNames;
  readonly #services: ServiceTable;
  readonly #proxyPorts: ProxyPorts;
  readonly #connections: ConnectionTable;
  readonly #events: EventReader;
  readonly #onEvent: (event: DatapathEvent) => void;
  /** Or why there is none. */
  readonly #http: HttpReader | string;
  readonly #attachments: Attachments;
  readonly #growth: MapGrowth;

  /**
   * Loads the programs and takes over the maps that are pinned.
   * @throws {DatapathError} `LayoutMismatch`, `IncompatibleState`
   * @throws {KernelError} `Verifier`, `Errno`
   */
  static open(options: ObjectOptions, deps: DatapathDeps = {}): Datapath {
    return new Datapath(options, loadObjects(options), deps);
  }

  private constructor(options: ObjectOptions, objects: DatapathObjects, deps: DatapathDeps) {
    const { maps } = objects;
    const survey = surveyConnections(maps);
    this.#objects = objects;
    this.#onEvent = deps.onEvent ?? (() => {});
    this.#attachments = new Attachments(() => objects.programs);
    this.#http = openHttp(options, objects);
    this.#growth = openGrowth(options, {
      objects,
      attachments: this.#attachments,
      http: typeof this.#http === 'string' ? undefined : this.#http,
      ...(deps.log === undefined ? {} : { log: deps.log }),
      ...(deps.onGrowth === undefined ? {} : { onStep: deps.onGrowth }),
    });
    this.#endpoints = new EndpointTable(maps, survey);
    this.#tunnels = new TunnelTable(maps);
    this.#paths = new PathTable(maps);
    this.#names = new LearntNames(maps, (id) => this.#endpoints.isLive(id));
    this.#policy = new PolicyTable(maps, this.#endpoints, this.#tunnels, deps.log, survey, this.#growth);
    this.#services = new ServiceTable(maps, deps.log, survey, this.#growth);
    this.#proxyPorts = new ProxyPorts(maps);
    this.#connections = new ConnectionTable(maps, this.#endpoints, ({ uid }, family) => {
      const entry = this.policy.endpoints.get(uid);
      return (family === 4 ? entry?.identity4 : entry?.identity6) ?? reservedIdentity.any;
    });
    this.#events = new EventReader(maps, this.#onEvent);
  }

  /** The policy in force. The next image is to be compiled against it, also the first one after a restart. */
  get policy(): PolicyImage {
    return this.#policy.image;
  }

  /** Of the policy; it grows by two with every image that is applied. */
  get revision(): number {
    return this.#policy.revision;
  }

  /** The pinned maps were another version's and had to be made anew: what they held is lost. */
  get recreated(): boolean {
    return this.#objects.recreated;
  }

  setConfig(settings: DatapathSettings): void {
    const { xfrm, changing, proxyLearn, ...rest } = settings;
    const map = this.#objects.maps.config;
    const before = map.get(0);
    if (before === undefined) throw new TypeError('the array map config has no entry 0');
    const wanted = { xfrm, changing, proxyLearn };
    let { flags } = before;
    for (const name of ['xfrm', 'changing', 'proxyLearn'] as const)
      flags = flagged(flags, configFlags[name], wanted[name]);
    map.set(0, { ...before, ...rest, flags });
  }

  get config(): Config | undefined {
    return this.#objects.maps.config.get(0);
  }

  /** Puts the programs on the device that reaches the other nodes. */
  attachUplink(ifindex: number): void {
    this.#attach('from_underlay', ifindex, 'ingress');
    this.#attach('to_underlay', ifindex, 'egress');
  }

  /**
   * Has tunnels be the engine's, the kernel's, or, while they go over from one to the other, both. No packet that either opened
   * is refused in between.
   * @param device The TUN device, which packets come out of the engine's tunnels at. Where the kernel carries tunnels its reader
   *   holds the packets of pairs that have no path yet.
   * @param carrier The xfrm device, where the kernel carries tunnels: packets come out of them there, and go into them by as
   *   `openPath` says.
   */
  carryBy({ device, carrier, changing }: { device: number; carrier?: number | undefined; changing: boolean }): void {
    if (carrier === undefined) {
      this.setConfig({ xfrm: false });
      this.#attach('from_tunnel', device, 'ingress');
      this.setConfig({ changing: false });
      return;
    }
    if (changing) this.setConfig({ changing });
    this.#attach('from_tunnel_ethernet', carrier, 'ingress');
    this.#attach('from_holder', device, 'ingress');
    this.setConfig({ xfrm: true, changing });
  }

  /**
   * Sends what is for the proxy to judge into its link, and lets out of it what belongs to that.
   * @param ifindex The node's side of the link.
   * @throws {KernelError} `Errno`
   */
  openProxy(ifindex: number): void {
    this.#attach('from_proxy', ifindex, 'ingress');
    this.setConfig({ proxyIfindex: ifindex });
    this.#policy.classify();
  }

  /** There is no proxy any more: nothing passes that is for it to judge. */
  closeProxy(): void {
    const { proxyIfindex = 0 } = this.config ?? {};
    this.setConfig({ proxyIfindex: 0 });
    this.#attachments.forget(proxyIfindex);
  }

  /**
   * Says who reads the requests to an endpoint's port that policy asks for and both could read; later connections go by it.
   * @param mode Undefined: the kernel, until it learns better.
   * @throws {KernelError} `Errno` where there are too many
   */
  setProxyPort(uid: string, port: number, mode: ProxyMode | undefined): void {
    const endpoint = this.#endpoints.byUid(uid);
    if (endpoint !== undefined) this.#proxyPorts.set(endpoint.id, port, mode);
  }

  /** What was said or learnt of endpoints' ports, also before this process; endpoints are by their ids. */
  proxyPorts(): ProxyPort[] {
    return this.#proxyPorts.all();
  }

  /** Whose next connections the proxy is to read, because of what became of one that the kernel read. */
  proxyClients(): ProxyClient[] {
    return this.#proxyPorts.clients();
  }

  /**
   * Guards a pod's interface and lets pass what policy says, or nothing while policy does not know the pod. To be called
   * for a new interface before it is up, and for every interface there is before the first `applyPolicy` of a process.
   * @throws {KernelError} `Errno`
   */
  setEndpoint(endpoint: EndpointInterface): void {
    // The guard first: without a map entry it lets nothing pass.
    this.#attach('from_pod', endpoint.ifindex, 'ingress');
    this.#attach('to_pod', endpoint.ifindex, 'egress');
    this.#endpoints.set(endpoint, this.policy.endpoints.get(endpoint.uid));
    if (typeof this.#http !== 'string' && endpoint.netns !== undefined)
      this.#http.addPod(endpoint.netns, endpoint.ifindex);
  }

  /** Forgets a pod's interface, its addresses and the tunnels that end at them. @returns Whether it was known. */
  removeEndpoint(uid: string): boolean {
    const removed = this.#endpoints.remove(uid);
    if (removed !== undefined) {
      this.#forgetSockets(removed.ifindex);
      this.#attachments.forget(removed.ifindex);
      this.#proxyPorts.keepOnly((id) => this.#endpoints.isLive(id));
    }
    for (const address of removed?.addresses ?? []) {
      this.#paths.forgetLocal(address);
      this.#tunnels.forgetLocal(address);
    }
    return removed !== undefined;
  }

  /**
   * Lets nothing pass to or from exactly these pods of this node, now and when they are made known, whatever policy says.
   * Outlives this process.
   * @returns The UIDs of those that were not closed before.
   */
  revoke(uids: ReadonlySet<string>): string[] {
    return this.#endpoints.revoke(uids);
  }

  /** Closes interfaces that an earlier process made known and this one has not. @returns Their device indices. */
  removeStrangers(): number[] {
    const removed = this.#endpoints.removeStrangers();
    for (const ifindex of removed) this.#forgetSockets(ifindex);
    this.#proxyPorts.keepOnly((id) => this.#endpoints.isLive(id));
    return removed;
  }

  /** Which HTTP requests are said in events; none, until this is called. */
  sayRequests(events: RequestEvents): void {
    if (typeof this.#http !== 'string') this.#http.say(events);
  }

  /** Why no requests can be read on this machine; undefined where they can. Connections that need it are closed then. */
  get httpUnavailable(): string | undefined {
    return typeof this.#http === 'string' ? this.#http : undefined;
  }

  /** @returns An endpoint by the id that events carry, also if it is gone, but not for long. */
  endpointById(id: number): KnownEndpoint | undefined {
    return this.#endpoints.byId(id);
  }

  endpointByUid(uid: string): KnownEndpoint | undefined {
    return this.#endpoints.byUid(uid);
  }

  /**
   * Puts a policy in force, whole or not at all. Calls must not overlap.
   * @throws {RevisionRefused} the policy before it is in force, unchanged
   * @throws {DatapathError} `NumberReused` where it was not compiled against `policy`
   */
  async applyPolicy(image: PolicyImage, options: ApplyOptions = {}): Promise<AppliedRevision> {
    const applied = await this.#policy.apply(image, options);
    this.#attachments.enforce();
    this.#growth.consider(this.#inUse());
    return applied;
  }

  /** Makes `fronts` all the services there are, or changes nothing. @throws {RevisionRefused} `ServicesRefused` */
  async applyServices(fronts: readonly ServiceFront[]): Promise<void> {
    await this.#services.apply(fronts);
    this.#growth.consider(this.#inUse());
  }

  /** @returns What connections to an address and port are translated to, or undefined where no service stands there. */
  serviceAt(front: TransportAddress, protocol: Protocol): ServiceHere | undefined {
    return this.#services.at(front, protocol);
  }

  /** @returns The name of a service by the id that events carry. */
  serviceName(id: number): string | undefined {
    return this.#services.nameOf(id);
  }

  /** Admits packets from `remote` to `local` out of the tunnel. @throws {KernelError} `Errno`: it is not admitted */
  proveTunnel(local: IpAddress, remote: IpAddress, proof: TunnelProof): void {
    this.#tunnels.prove(local, remote, proof);
    this.#growth.consider([{ map: this.#objects.maps.tunnels.name, entries: this.#tunnels.size }]);
  }

  /** @returns Whether it was admitted. */
  forgetTunnel(local: IpAddress, remote: IpAddress): boolean {
    return this.#tunnels.forget(local, remote);
  }

  /** Every pair that is admitted, also by an earlier process. */
  tunnels(): (readonly [TunnelKey, Tunnel])[] {
    return this.#tunnels.all();
  }

  /** From now on the pair's packets leave by this device, whose kernel has a key for them. @throws {KernelError} `Errno` */
  openPath(local: IpAddress, remote: IpAddress, ifindex: number): void {
    this.#paths.open(local, remote, ifindex);
    this.#growth.consider([{ map: this.#objects.maps.tunnelPaths.name, entries: this.#paths.size }]);
  }

  /** From now on they are held. @returns Whether the path was open. */
  closePath(local: IpAddress, remote: IpAddress): boolean {
    return this.#paths.close(local, remote);
  }

  /** Every pair with an open path, also by an earlier process. */
  paths(): TunnelKey[] {
    return this.#paths.all();
  }

  /** What the maps say now, whatever this process believes. */
  evaluate(query: MapQuery): MapVerdict {
    return evaluateMaps(this.#objects.maps, query);
  }

  /** What DNS told the pods of this node, as far as it counts now. */
  names(): LearntName[] {
    return this.#names.all();
  }

  /** What an endpoint, by its id, was told by DNS about an address: perhaps something that counts no more. */
  nameAt(endpoint: number, address: IpAddress): LearntName | undefined {
    return this.#names.at(endpoint, address);
  }

  /** Removes what DNS told and has run out; to be called every minute or so. @returns How many addresses. */
  collectNames(): number {
    return this.#names.collect();
  }

  connections(): Iterable<Connection> {
    return this.#connections.all();
  }

  /** Removes expired connections; to be called every few seconds. The ends come as events. */
  async collectConnections(signal?: AbortSignal): Promise<Collected> {
    return this.#connections.collect(this.#onEvent, signal);
  }

  /** Hands out the events that are there without waiting for the event loop. @returns How many. */
  drainEvents(): number {
    return this.#events.drain();
  }

  metrics(): DatapathMetrics {
    return readMetrics(this.#objects.maps);
  }

  losses(): Losses {
    const perCpu = this.#objects.maps.eventLosses.perCpu(0);
    const ring = perCpu.reduce((sum, count) => sum + Number(count), 0);
    return { ring, undecodable: this.#events.undecodable };
  }

  /** How full the maps are, by map. Connections as of their last collection. */
  usage(): Readonly<Record<string, Usage>> {
    return Object.fromEntries(
      this.#inUse().map(({ map, entries }) => [map, usageOf(map, entries, this.#objects, this.#growth)]),
    );
  }

  /** Why maps could not be made larger the last time that this was tried; undefined where nothing is wrong. */
  get growthProblem(): string | undefined {
    return this.#growth.problem;
  }

  #inUse(): Need[] {
    const { maps } = this.#objects;
    const { peers, prefixes, ruleSets, matchers } = this.policy;
    let entries = 0;
    for (const set of ruleSets.values()) entries += set.entries.length;
    let rows = 0;
    for (const { matcher } of ruleSets.values()) rows += matcher?.tables.accept.length ?? 0;
    let states = 0;
    for (const matcher of matchers.values()) states += matcher.states.length;
    return [
      { table: maps.policy, used: entries },
      { table: maps.ruleSets, used: ruleSets.size },
      { table: maps.peers, used: peers.size },
      { table: maps.prefixes, used: prefixes.size },
      { table: maps.endpoints, used: this.#endpoints.size },
      { table: maps.services, used: this.#services.size },
      { table: maps.backends, used: this.#services.backends },
      { table: maps.tunnels, used: this.#tunnels.size },
      { table: maps.connections, used: this.#connections.lastCount },
      { table: maps.names, used: this.#names.lastCount },
      { table: maps.nameStates, used: states },
      { table: maps.httpRows, used: rows },
    ].map(({ table, used }) => ({ map: table.name, entries: used }));
  }

  /** Gives up this process's handles, after what is under way has ended. Programs and pinned maps stay as they are. */
  async close(): Promise<void> {
    await Promise.all([this.#policy.settled, this.#services.settled]);
    await this.#growth.settled;
    this.#events.close();
    if (typeof this.#http !== 'string') this.#http.close();
    this.#objects.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #forgetSockets(ifindex: number): void {
    if (typeof this.#http !== 'string') this.#http.removePod(ifindex);
  }

  #attach(name: ProgramName, ifindex: number, direction: TcDirection): void {
    // An older program enforces the last policy there was, from maps that only it still has; the new maps have none yet.
    const enforced = this.#objects.recreated && this.revision === 0 && queryTc(ifindex, direction) !== undefined;
    this.#attachments.attach(name, ifindex, direction, enforced);
  }
}

function flagged(flags: number, flag: number, wanted: boolean | undefined): number {
  return wanted === undefined ? flags : wanted ? flags | flag : flags & ~flag;
}

/** @returns What reads requests, or why this machine has no such thing: all else works without. */
function openHttp(options: ObjectOptions, { shared, recreated }: DatapathObjects): HttpReader | string {
  const { objectDir, pinDir, maxEntries } = options;
  try {
    return HttpReader.open({
      objectDir,
      ...(pinDir === undefined ? { maps: shared } : { pinDir }),
      ...(maxEntries === undefined ? {} : { maxEntries }),
      anew: recreated,
    });
  } catch (error) {
    if (error instanceof KernelError) return error.message;
    throw error;
  }
}
