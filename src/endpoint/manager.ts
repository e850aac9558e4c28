import type { Logger } from 'pino';
import type { IpAddress } from '../model/address.ts';
import type { Prefix } from '../model/prefix.ts';
import { Books } from './books.ts';
import { differences, readSide } from './check.ts';
import { CniError, toCniError } from './cni/error.ts';
import type { Attachment, CniRequest } from './cni/request.ts';
import { addResult, readPrevResult } from './cni/result.ts';
import { type Endpoint, hostInterfaceOf, keyOf } from './endpoint.ts';
import type { EndpointHooks, Step, Trace } from './hooks.ts';
import { IpamError, type IpamUsage } from './ipam.ts';
import { Gate, KeyedLock } from './lock.ts';
import { PodNetwork } from './network.ts';
import { Sandbox } from './sandbox.ts';
import { type EndpointRecord, StoreError } from './store.ts';

export interface EndpointManagerOptions {
  /** Leases and endpoints; on a disk that outlives a reboot, or pods' addresses do not. Its directory is made. */
  readonly stateFile: string;
  /** This node's pod CIDRs, one of a family at most. */
  readonly cidrs: readonly Prefix[];
  /** Of both ends of every pod's veth pair. */
  readonly mtu: number;
  /** The node's own addresses, one of a family at most: the source of its packets to its pods. */
  readonly nodeAddresses?: readonly IpAddress[];
  /** How long an address that a pod gave up is given to no other; 60 000 by default. */
  readonly coolDownMs?: number;
}

export interface EndpointManagerDeps {
  readonly log: Logger;
  readonly hooks: EndpointHooks;
  /** Unix milliseconds that never go back; by default the wall clock at the start plus monotonic time. */
  readonly clock?: () => number;
  readonly trace?: Trace;
}

/** What {@link EndpointManager.reconcile} found to do. */
export interface Reconciled {
  readonly kept: number;
  /** Records without their interface, or whose making or removal was cut short. */
  readonly dropped: number;
  /** Interfaces that no record knows. */
  readonly orphans: number;
}

/** Veth pairs made at once: more only make each other wait for the kernel's one network lock. */
const atOnce = 8;

/**
 * Makes, checks and removes pods' interfaces, and remembers them. Everything it does survives being killed between any
 * two steps: a record is durable before the kernel is touched, the host side's name follows from the container's ID, and
 * {@link reconcile} removes what was not finished. Operations on one container never overlap.
 */
export class EndpointManager {
  readonly #deps: EndpointManagerDeps;
  readonly #books: Books;
  readonly #network: PodNetwork;
  readonly #locks = new KeyedLock();
  readonly #gate = new Gate(atOnce);

  /**
   * Reads the state back; nothing is done to the kernel before {@link reconcile}.
   * @throws {StoreError} `CorruptState` @throws {IpamError} `InvalidCidr`
   */
  static async open(options: EndpointManagerOptions, deps: EndpointManagerDeps): Promise<EndpointManager> {
    const started = Date.now() - performance.now();
    const clock = deps.clock ?? (() => Math.round(started + performance.now()));
    const books = await Books.open({ coolDownMs: 60_000, ...options }, clock);
    return new EndpointManager(deps, books, new PodNetwork(options.nodeAddresses ?? []));
  }

  private constructor(deps: EndpointManagerDeps, books: Books, network: PodNetwork) {
    this.#deps = deps;
    this.#books = books;
    this.#network = network;
  }

  /** The endpoints that runtimes know of, oldest first. */
  list(): Endpoint[] {
    return this.#books.records.filter(({ phase }) => phase === 'ready');
  }

  /** For pods to come; those that are there keep what they have. */
  setMtu(mtu: number): void {
    this.#books.mtu = mtu;
  }

  /** How many addresses there are, are in use, and cool down. */
  usage(): IpamUsage {
    return this.#books.usage();
  }

  /**
   * Makes books and kernel agree, at the agent's start and before any request: what was cut short is removed, endpoints
   * whose interface is gone are forgotten, interfaces that nobody remembers are deleted, and the node's side of the
   * others is put right. What cannot be removed is logged, and is no longer listed.
   */
  async reconcile(): Promise<Reconciled> {
    const present = await this.#network.hostInterfaces();
    const stale = this.#books.records.filter(
      (record) => record.phase === 'partial' || present.get(record.hostInterface) !== record.hostIndex,
    );
    for (const record of stale)
      await this.#remove(record).catch((error: unknown) => this.#complain(error, record, 'cannot remove an endpoint'));
    const orphans = await this.#removeOrphans();
    const kept = this.list();
    await this.#network.repair(kept).catch(async () => {
      // One that cannot be repaired must not keep the others from it.
      for (const endpoint of kept)
        await this.#network
          .repair([endpoint])
          .catch((error: unknown) => this.#complain(error, endpoint, 'cannot repair an endpoint'));
    });
    return { kept: kept.length, dropped: stale.length, orphans };
  }

  /** @returns The result of CNI ADD in the form of the request's version. @throws {CniError} */
  async add(request: CniRequest): Promise<unknown> {
    return this.#locks.run(request.containerId, () => this.#gate.run(() => this.#add(request)));
  }

  /** Idempotent: an attachment that is not there counts as removed. @throws {CniError} `TryAgainLater` */
  async del(request: Attachment): Promise<void> {
    await this.#locks.run(request.containerId, () => this.#gate.run(() => this.#del(request)));
  }

  /** @throws {CniError} `CheckFailed` with everything that is wrong, `UnknownContainer`, `InvalidNetworkConfig` */
  async check(request: CniRequest): Promise<void> {
    await this.#locks.run(request.containerId, () => this.#check(request));
  }

  /** Removes what the runtime no longer counts among its attachments. @throws {CniError} `CleanupIncomplete` */
  async gc({ config }: CniRequest): Promise<void> {
    const valid = new Set((config.validAttachments ?? []).map(keyOf));
    const failed: string[] = [];
    for (const record of this.#books.records) {
      if (record.network !== config.name || valid.has(keyOf(record))) continue;
      await this.del(record).catch((error: unknown) => failed.push(`${keyOf(record)}: ${messageOf(error)}`));
    }
    await this.#removeOrphans().catch((error: unknown) => failed.push(messageOf(error)));
    if (failed.length > 0)
      throw new CniError('CleanupIncomplete', 'not everything stale could be removed', failed.join('; '));
  }

  /** @throws {CniError} `NotAvailable`, `LimitedConnectivity` */
  async status(): Promise<void> {
    const notReady = await this.#deps.hooks.status?.();
    if (notReady !== undefined)
      throw new CniError(
        notReady.limited ? 'LimitedConnectivity' : 'NotAvailable',
        'Myelin is not ready on this node',
        notReady.message,
      );
    const exhaustion = this.#books.exhaustion();
    if (exhaustion !== undefined) throw new CniError('NotAvailable', 'no address is free on this node', exhaustion);
  }

  async #add(request: CniRequest): Promise<unknown> {
    for (const record of this.#books.ofContainer(request.containerId)) {
      if (record.phase === 'ready')
        throw new CniError(
          'AlreadyAttached',
          'the container is attached already',
          `${record.containerId} has ${record.ifName} in ${record.netns}; a container has one Myelin interface: DEL it first`,
        );
      // An ADD that failed and could not be undone then.
      await this.#remove(record);
    }
    const sandbox = new Sandbox(request.netns);
    try {
      return await this.#build(request, sandbox.path);
    } finally {
      sandbox.close();
    }
  }

  async #build(request: CniRequest, netns: string): Promise<unknown> {
    let record = this.#reserve(request);
    try {
      // Together: what is on record without an interface, and an interface that is not on record, are both removed
      // after a crash. The address is used by nobody before both are done.
      const [hostIndex] = await both(this.#createPair(record, netns), this.#reserved(record));
      record = this.#books.put({ ...record, hostIndex });
      await this.#deps.hooks.prepare(record);
      this.#step('prepared', record);
      await this.#network.bringUp(record, netns);
      this.#step('wired', record);
      await this.#deps.hooks.onAdded(record);
      this.#step('announced', record);
      record = this.#books.put({ ...record, phase: 'ready' });
      await this.#books.save();
      this.#step('stored', record);
      return addResult(record, request.config);
    } catch (error) {
      this.#complain(error, record, 'cannot set a pod’s network up; undoing');
      await this.#remove(record).catch((cause: unknown) => this.#complain(cause, record, 'cannot undo'));
      if (error instanceof StoreError) throw toCniError(error, 'IoFailure', 'cannot write the node’s state');
      throw toCniError(error, 'SetupFailed', 'cannot set the pod’s network up');
    }
  }

  /** @throws {CniError} `TryAgainLater` where no address is free. */
  #reserve(request: CniRequest): EndpointRecord {
    try {
      return this.#books.reserve(request);
    } catch (error) {
      if (error instanceof IpamError) throw new CniError('TryAgainLater', error.message, '', error);
      throw error;
    }
  }

  async #reserved(record: EndpointRecord): Promise<void> {
    await this.#books.save();
    this.#step('reserved', record);
  }

  async #createPair(record: EndpointRecord, netns: string): Promise<number> {
    // One that nobody remembers, or it would not have come this far.
    await this.#network.remove(record.hostInterface);
    try {
      const index = await this.#network.createPair(record, netns);
      this.#step('linked', record);
      return index;
    } catch (error) {
      const inside = await readSide(record.ifName, netns);
      if (inside.link === undefined) throw error;
      const msg = `the container has an interface ${record.ifName} already`;
      throw new CniError('AlreadyAttached', msg, messageOf(error), error);
    }
  }

  async #del(request: Attachment): Promise<void> {
    const record = this.#books.find(request);
    try {
      if (record !== undefined) await this.#remove(record);
      else if (this.#books.ofContainer(request.containerId).length === 0)
        await this.#network.remove(hostInterfaceOf(request.containerId));
    } catch (error) {
      throw toCniError(error, 'TryAgainLater', 'the pod’s network is not wholly removed yet');
    }
  }

  /**
   * Undoes ADD, from whatever point. The addresses are given back last, when nothing carries them any more. Where a step
   * fails the later ones are done all the same, but the record stays, so that DEL, GC or the next start try again.
   */
  async #remove(record: EndpointRecord): Promise<void> {
    this.#books.put({ ...record, phase: 'partial' });
    const outcomes = [await attempt(async () => this.#deps.hooks.onRemoved(record))];
    this.#step('forgotten', record);
    outcomes.push(await attempt(() => this.#network.remove(record.hostInterface)));
    this.#step('unlinked', record);
    for (const outcome of outcomes) if (outcome !== undefined) throw outcome.error;
    this.#books.close(record);
    await this.#books.save();
    this.#step('released', record);
  }

  async #removeOrphans(): Promise<number> {
    const present = await this.#network.hostInterfaces();
    // Asked for after the kernel was: an ADD is on record before its interface exists.
    const known = new Set(this.#books.records.map(({ hostInterface }) => hostInterface));
    const orphans = [...present.keys()].filter((name) => !known.has(name));
    for (const name of orphans) await this.#network.remove(name);
    return orphans.length;
  }

  async #check(request: CniRequest): Promise<void> {
    const { prevResult, name } = request.config;
    if (prevResult === undefined)
      throw new CniError('InvalidNetworkConfig', 'missing prevResult', 'CHECK needs the result of ADD');
    const record = this.#books.find(request);
    if (record?.phase !== 'ready')
      throw new CniError('UnknownContainer', 'unknown container', `${keyOf(request)} is not attached to ${name}`);
    const sandbox = new Sandbox(request.netns);
    try {
      const [host, pod] = await Promise.all([readSide(record.hostInterface), readSide(record.ifName, sandbox.path)]);
      const found = differences(record, readPrevResult(prevResult), request.netns, host, pod);
      const more = await this.#deps.hooks.check?.(record);
      if (more !== undefined) found.push(more);
      if (found.length > 0)
        throw new CniError('CheckFailed', 'the pod’s network is not as it should be', found.join('; '));
    } finally {
      sandbox.close();
    }
  }

  #complain(error: unknown, { containerId, ifName, pod, hostInterface }: Endpoint, message: string): void {
    this.#deps.log.error({ err: error, containerId, ifName, pod, hostInterface }, message);
  }

  #step(step: Step, endpoint: Attachment): void {
    this.#deps.trace?.(step, endpoint);
  }
}

/** Ends when both have, so that undoing overlaps with neither. @throws what the first of them that failed did. */
async function both<A, B>(a: Promise<A>, b: Promise<B>): Promise<[A, B]> {
  await Promise.allSettled([a, b]);
  return Promise.all([a, b]);
}

async function attempt(job: () => Promise<void>): Promise<{ readonly error: unknown } | undefined> {
  try {
    await job();
    return undefined;
  } catch (error) {
    return { error };
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
