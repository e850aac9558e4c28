import { EventEmitter } from 'node:events';
import type { TrustBundle } from '../identity/bundle.ts';
import { messageOf } from '../identity/certificate.ts';
import type { IpAddress } from '../model/address.ts';
import { answerPair, answerPod } from './answer.ts';
import { type InstalledSa, type TrafficSelector, TunnelError, type UnderlayAddress } from './driver.ts';
import { HandshakeCounters, type HandshakeStatistics, RateLimit } from './handshake/counters.ts';
import { TlsContexts } from './handshake/credentials.ts';
import { asHandshakeError, HandshakeError } from './handshake/error.ts';
import type { NodeSession } from './handshake/node-session.ts';
import type { PairConversation } from './handshake/pair-conversation.ts';
import { PeerVerifier } from './handshake/peer.ts';
import { HandshakeServer } from './handshake/server.ts';
import { defaultGroups } from './handshake/tls-parameters.ts';
import { TlsWork } from './handshake/work.ts';
import { Inventory } from './inventory.ts';
import { type KeyLimits, makeServices } from './make-services.ts';
import type { TunnelManagerDeps, TunnelManagerOptions } from './manager-options.ts';
import { NodeSessions } from './node-sessions.ts';
import { hearNotice, NodeNotices } from './notices.ts';
import type { LocalPod } from './peers.ts';
import { SaHolders } from './sa-ledger.ts';
import type { Role, TunnelServices } from './services.ts';
import { RandomSpis } from './spi-pool.ts';
import { type TunnelStatus, tunnelStatus } from './status.ts';
import { TunnelTable } from './table.ts';
import type { HandshakeTrace } from './trace.ts';
import type { Tunnel } from './tunnel.ts';
import { endRevoked, listenToDriver, type TunnelWorld, takeOver } from './world.ts';

export interface TunnelManagerEvents {
  /** A handshake ended: `done`, or the code of why not. */
  handshake: [report: { readonly role: Role; readonly outcome: string; readonly durationMs: number }];
}

/** How long a pair that failed is listed with its reason when nobody asks for it any more. */
const rememberMs = 5 * 60_000;
const sweepMs = 30_000;
const defaultLifetimeBytes = 2 ** 36;
const mostEarly = 1024;

/** Keeps the tunnels of this node's pods: opens them when packets ask, answers peers, renews, takes down. */
export class TunnelManager extends EventEmitter<TunnelManagerEvents> {
  readonly #deps: TunnelManagerDeps;
  readonly #services: TunnelServices;
  readonly #world: TunnelWorld;
  readonly #limits: KeyLimits;
  readonly #counters = new HandshakeCounters();
  readonly #rateLimit: RateLimit;
  readonly #server: HandshakeServer;
  readonly #notices: NodeNotices;
  readonly #nodes: NodeSessions;
  readonly #work: TlsWork;
  readonly #spis: RandomSpis;
  readonly #holders = new SaHolders<Tunnel>();
  readonly #locals = new Map<string, LocalPod>();
  readonly #localAt = new Map<IpAddress, LocalPod>();
  readonly #table: TunnelTable;
  readonly #inventory: Inventory;
  readonly #listeners: (() => void)[] = [];
  /** Pairs whose packets wait for somebody who is not known yet: for this manager's start, or for the pod here. */
  readonly #early: TrafficSelector[] = [];
  #started = false;
  #sweeper: NodeJS.Timeout | undefined;
  #port: number;

  constructor(options: TunnelManagerOptions, deps: TunnelManagerDeps) {
    super();
    this.#deps = deps;
    const { trustDomain, groups = defaultGroups, timeoutMs = 5000, handshakePort = 4747 } = options;
    const { driver, logger, svid, resolver, bundles, nodeIdentity } = deps;
    this.#port = handshakePort;
    this.#spis = new RandomSpis((random) => driver.spiOf?.(random) ?? random);
    this.#table = new TunnelTable(resolver);
    // From the first moment: the driver says once that packets wait.
    const acquire = (pair: TrafficSelector) => this.#acquire(pair);
    driver.on('acquire', acquire);
    this.#listeners.push(() => driver.off('acquire', acquire));
    const now = deps.now ?? Date.now;
    this.#inventory = new Inventory(driver, now);
    this.#rateLimit = new RateLimit(1000, now);
    const bundle = () => bundles.current;
    const contexts = new TlsContexts(groups, bundle);
    const verifier = new PeerVerifier(bundle, now);
    this.#work = new TlsWork({ groups, timeoutMs, ...options.threads }, { contexts, logger });
    const work = this.#work;
    const lifetimeSeconds = options.lifetimeSeconds ?? 3600;
    this.#nodes = new NodeSessions(
      {
        trustDomain,
        handshakePort,
        timeoutMs,
        lifetimeMs: 1000 * (options.nodeSessionSeconds ?? lifetimeSeconds),
        idleMs: 1000 * (options.nodeIdleSeconds ?? 60),
      },
      { work, verifier, nodeIdentity, onPair: (conversation, session) => void this.#answer(conversation, session) },
    );
    this.#limits = {
      lifetime: {
        seconds: lifetimeSeconds,
        bytes: options.lifetimeBytes ?? defaultLifetimeBytes,
        packets: options.lifetimePackets ?? 2 ** 40,
      },
    };
    const services = makeServices(options, deps, {
      work,
      verifier,
      counters: this.#counters,
      nodes: this.#nodes,
      spis: this.#spis,
      holders: this.#holders,
      table: this.#table,
      inventory: this.#inventory,
      limits: this.#limits,
      onHandshake: (_, role, outcome, durationMs) => this.emit('handshake', { role, outcome, durationMs }),
    });
    this.#services = services;
    this.#world = {
      ...{ services, resolver, table: this.#table, holders: this.#holders, inventory: this.#inventory },
      spis: this.#spis,
      nodes: this.#nodes,
      onUnknownSpi: (node, spi) => this.#notices.unknownSpi(node, spi),
    };
    const { host, limits, noticeIntervalMs: intervalMs = 250 } = options;
    this.#server = new HandshakeServer(
      {
        port: handshakePort,
        trustDomain,
        groups,
        timeoutMs,
        ...(host === undefined ? {} : { host }),
        ...(limits === undefined ? {} : { limits }),
      },
      {
        contexts,
        work,
        verifier,
        counters: this.#counters,
        rateLimit: this.#rateLimit,
        logger,
        podIdentity: (uid) => (this.#locals.has(uid) ? svid(uid) : undefined),
        nodeIdentity,
        isNode: (address) => resolver.nodeAt(address) !== undefined,
        onPod: async (session) => {
          const local = this.#locals.get(session.podUid);
          if (local === undefined) throw new HandshakeError('unknown-endpoint');
          await answerPod(session, local, this.#world);
        },
        onSession: (link, peer) => this.#nodes.accept(link, peer),
        onNode: (session) => hearNotice(session, (node, spis) => this.#lost(node, new Set(spis))),
      },
    );
    this.#notices = new NodeNotices(
      { trustDomain, handshakePort, timeoutMs, intervalMs },
      { work, verifier, nodeIdentity, logger },
    );
  }

  /** The TCP port that handshakes are taken on. */
  get port(): number {
    return this.#port;
  }

  /**
   * Takes over what an earlier agent of this node left in the driver, without touching what still stands, and begins.
   * @param locals The pods of this node. What is installed for others is removed.
   */
  async start(locals: readonly LocalPod[] = []): Promise<void> {
    for (const pod of locals) this.#addLocal(pod);
    await takeOver(this.#world, this.#locals);
    this.#listeners.push(listenToDriver(this.#deps.driver, this.#world));
    const changed = (bundle: TrustBundle) => this.#revoke(bundle);
    this.#deps.bundles.on('changed', changed);
    this.#listeners.push(() => this.#deps.bundles.off('changed', changed));
    // What was revoked while no agent ran, if that is known by now.
    this.#revoke(this.#deps.bundles.current);
    this.#port = await this.#server.listen();
    this.#started = true;
    for (const pair of this.#early.splice(0)) this.#acquire(pair);
    this.#sweeper = setInterval(() => this.#sweep(), sweepMs);
    this.#sweeper.unref();
  }

  /** Stops, leaving every key where it is. */
  async close(): Promise<void> {
    clearInterval(this.#sweeper);
    for (const stop of this.#listeners.splice(0)) stop();
    this.#notices.close();
    this.#nodes.close();
    for (const tunnel of this.#table.all) tunnel.close();
    await this.#server.close();
    await this.#work.close();
    await Promise.all(this.#table.all.map((tunnel) => tunnel.settled()));
  }

  /** A pod has come to this node. Whoever had its addresses before is gone. To be called again when it has changed. */
  async addLocal(pod: LocalPod): Promise<void> {
    const known = this.#locals.get(pod.pod.uid);
    const isSame = (other: LocalPod) =>
      other.pod.uid === pod.pod.uid &&
      other.spiffeId === pod.spiffeId &&
      other.addresses.join() === pod.addresses.join();
    if (known !== undefined && isSame(known)) return;
    const former = pod.addresses.flatMap((address) => this.#localAt.get(address) ?? []);
    for (const other of [known, ...former]) if (other !== undefined) await this.removeLocal(other.pod.uid);
    this.#addLocal(pod);
    const waiting = this.#early.filter(({ local }) => pod.addresses.includes(local));
    for (const pair of waiting) {
      this.#early.splice(this.#early.indexOf(pair), 1);
      this.#acquire(pair);
    }
  }

  /** A pod has left this node. Resolves when none of its keys is left in the driver. */
  async removeLocal(podUid: string): Promise<void> {
    const local = this.#locals.get(podUid);
    if (local === undefined) return;
    this.#locals.delete(podUid);
    for (const address of local.addresses)
      if (this.#localAt.get(address)?.pod.uid === podUid) this.#localAt.delete(address);
    const ending = this.#table.all.filter((tunnel) => tunnel.local.pod.uid === podUid);
    await Promise.all(ending.map((tunnel) => this.#table.end(tunnel)));
  }

  /**
   * Holds every tunnel against what is believed now: to be called when pods or nodes have changed. Takes down tunnels
   * to pods that are gone or are somebody else, and follows nodes that have moved.
   * @param addresses Only tunnels to these; default all.
   */
  async reconcile(addresses?: readonly IpAddress[]): Promise<void> {
    const tunnels = addresses === undefined ? this.#table.all : this.#table.to(addresses);
    await Promise.all(tunnels.map((tunnel) => this.#check(tunnel)));
  }

  /** Policy is another one now: who was refused for it need not wait to ask again. */
  policyChanged(): void {
    for (const tunnel of this.#table.all) tunnel.dispatch({ type: 'reconsider' });
  }

  /** How long keys may be used that are agreed on from now on. What is up keeps the limits that it came with. */
  setLifetime({ seconds, bytes = defaultLifetimeBytes }: { seconds: number; bytes?: number | undefined }): void {
    this.#limits.lifetime = { ...this.#limits.lifetime, seconds, bytes };
  }

  /** Every pair that has a tunnel, wants one, or failed to get one lately. */
  async list(): Promise<TunnelStatus[]> {
    const { driver } = this.#deps;
    const installed = await this.#inventory.installed().catch(() => new Map<string, InstalledSa>());
    return this.#table.all.map((tunnel) => tunnelStatus(tunnel, driver.name, installed));
  }

  /**
   * Makes a handshake of the pair to look at, in place of the key that is up, which carries packets until then.
   * @returns What it did. @throws {TunnelError} `NoSuchSa` where the two can have no tunnel
   */
  async trace(localUid: string, remoteAddress: IpAddress): Promise<HandshakeTrace> {
    const local = this.#locals.get(localUid);
    const remote = this.#deps.resolver.podAt(remoteAddress);
    if (local === undefined || remote === undefined)
      throw new TunnelError('NoSuchSa', `no tunnel from ${localUid} to ${remoteAddress} is possible from here`);
    return await this.#table.of(local, remote, this.#services).trace();
  }

  /** Where packets of tunnels that are up are sent to: every place once. */
  peers(): UnderlayAddress[] {
    const sending = this.#table.all.flatMap(({ sas }) => sas.findLast(({ direction }) => direction === 'out') ?? []);
    return [...new Map(sending.map(({ peer }) => [`${peer.address} ${peer.port}`, peer])).values()];
  }

  statistics(): HandshakeStatistics {
    const { size: nodeSessions, handshakes: nodeHandshakes } = this.#nodes;
    const { size: threads, begun: threadsBegun } = this.#work.threads;
    return { ...this.#counters.statistics(), nodeSessions, nodeHandshakes, threads, threadsBegun };
  }

  #addLocal(pod: LocalPod): void {
    this.#locals.set(pod.pod.uid, pod);
    for (const address of pod.addresses) this.#localAt.set(address, pod);
  }

  #revoke(bundle: TrustBundle): void {
    endRevoked(bundle, this.#world);
  }

  #acquire(pair: TrafficSelector): void {
    const { driver, logger, resolver } = this.#deps;
    const local = this.#localAt.get(pair.local);
    if (!this.#started || local === undefined) {
      // Said once while packets wait, which they do for a few seconds at most.
      this.#early.push(pair);
      if (this.#early.length > mostEarly) this.#early.shift();
      return;
    }
    const remote = resolver.podAt(pair.remote);
    if (remote === undefined) {
      logger.debug({ pair }, 'packets wait for a pod that is not known');
      driver.fail(pair).catch((error: unknown) => logger.debug({ error: messageOf(error) }, 'fail'));
      return;
    }
    this.#table.of(local, remote, this.#services).dispatch({ type: 'acquire' });
  }

  /** Another node asks for a pair. */
  async #answer(conversation: PairConversation, session: NodeSession): Promise<void> {
    try {
      await answerPair(conversation, session, (uid) => this.#locals.get(uid), this.#world);
      conversation.close();
    } catch (cause) {
      const error = asHandshakeError(cause);
      conversation.refuse(error);
      this.#counters.failed(error);
      const skipped = this.#rateLimit.pass(error.code);
      if (skipped === undefined || error.code === 'yield' || error.code === 'aborted') return;
      const { code: reason, message: detail } = error;
      this.#deps.logger.warn({ reason, node: session.peer.node, skipped, detail }, 'pair refused');
    }
  }

  async #check(tunnel: Tunnel): Promise<void> {
    const { remote } = tunnel;
    for (const address of remote.addresses) {
      const believed = this.#deps.resolver.podAt(address);
      if (believed?.pod.uid !== remote.pod.uid || believed.spiffeId !== remote.spiffeId)
        return await this.#table.end(tunnel);
      this.#table.update(tunnel, believed);
    }
    tunnel.followRadius();
    await tunnel.settled();
  }

  /** Another node says that it does not know these SPIs, which we send to it with. */
  #lost(node: string, spis: ReadonlySet<number>): void {
    for (const tunnel of this.#table.all) {
      const { up } = tunnel.state;
      if (up !== undefined && spis.has(up.spiOut) && tunnel.remote.node.name === node)
        tunnel.dispatch({ type: 'lost', spi: up.spiOut });
    }
  }

  #sweep(): void {
    const now = this.#services.now();
    for (const tunnel of this.#table.all)
      if (tunnel.isAtRest && now - (tunnel.state.lastError?.at ?? 0) > rememberMs) this.#table.drop(tunnel);
  }
}
