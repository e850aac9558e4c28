import type { Logger } from 'pino';
import { KernelError } from '../kernel/error.ts';
import { waitForPackets } from '../kernel/rcu.ts';
import { firstFreeIdentity, type IdentityNumber } from '../model/identity.ts';
import { diff, type PolicyOperation } from '../policy/diff.ts';
import { type PolicyEntry, type PolicyImage, verdictCodes } from '../policy/image.ts';
import { type Bridge, bridgesBetween } from './bridge.ts';
import type { EndpointTable } from './endpoints.ts';
import { DatapathError, RevisionRefused } from './error.ts';
import { fixedRoom, type Room } from './growth/capacity.ts';
import { entriesAtMost, tableNeeds } from './growth/policy-needs.ts';
import { HttpTables } from './http/tables.ts';
import type { PolicyKey, PolicyValue } from './layouts.ts';
import { type NameMaps, putMatcher, removeMatcher } from './names.ts';
import type { DatapathMaps } from './objects.ts';
import { placeValue, prefixKeyOf } from './places.ts';
import { ClassTable } from './proxy/classes.ts';
import { restoreImage } from './restore.ts';
import { type Survey, surveyConnections } from './survey.ts';
import { Transaction } from './transaction.ts';
import type { TunnelIdentity, TunnelTable } from './tunnels.ts';

export interface ApplyOptions {
  /** Gives proven tunnels their identities in the new revision, at the step where they belong. */
  readonly tunnelIdentity?: TunnelIdentity;
}

export interface AppliedRevision {
  readonly revision: number;
  /** Steps that the change took. */
  readonly operations: number;
}

type PolicyMaps = NameMaps & Pick<DatapathMaps, 'config' | 'peers' | 'prefixes' | 'ruleSets' | 'policy'>;

/** What the revision before has left, and is removed once no packet can be on its way through it. */
const leftoverKinds: ReadonlySet<PolicyOperation['kind']> = new Set([
  'delete-entries',
  'delete-rule-set',
  'delete-matcher',
  'delete-pattern',
]);

/** Owner of policy in the maps: one revision is in force, and the next one takes its place whole or not at all. */
export class PolicyTable {
  readonly #all: DatapathMaps;
  readonly #maps: PolicyMaps;
  readonly #endpoints: EndpointTable;
  readonly #tunnels: TunnelTable;
  readonly #classes: ClassTable;
  readonly #log: Pick<Logger, 'warn'> | undefined;
  readonly #room: Room;
  #http: HttpTables;
  #image: PolicyImage;
  /** The image was read back from the maps: its numbers mean nothing that a new image could know. */
  #restored = true;
  /** Undoing failed: what is in the maps is neither the one revision nor the other. */
  #damaged = false;
  /** What the revision before has left is being removed. */
  #cleanup: Promise<void> = Promise.resolve();

  constructor(
    maps: DatapathMaps,
    endpoints: EndpointTable,
    tunnels: TunnelTable,
    log?: Pick<Logger, 'warn'>,
    survey: Survey = surveyConnections(maps),
    room: Room = fixedRoom,
  ) {
    this.#log = log;
    this.#room = room;
    this.#all = maps;
    this.#maps = maps;
    this.#endpoints = endpoints;
    this.#tunnels = tunnels;
    this.#classes = new ClassTable(maps);
    this.#http = new HttpTables(maps);
    this.#image = restoreImage(maps, survey);
  }

  /** The revision in force: what the next one is to be compiled against, also the first one after a restart. */
  get image(): PolicyImage {
    return this.#image;
  }

  get revision(): number {
    return this.#maps.config.get(0)?.revision ?? 0;
  }

  /** Resolves when nothing of an earlier revision is in the maps any more. */
  get settled(): Promise<void> {
    return this.#cleanup;
  }

  /** Has the datapath know what its numbers stand for, from when there is a proxy on. @throws {KernelError} `Errno` */
  classify(): void {
    // Nobody knows what the numbers of the process before stood for; but the map does, if there was a proxy.
    if (this.#restored) return;
    const transaction = new Transaction();
    try {
      this.#classes.put(transaction, this.#image.identities);
    } catch (error) {
      transaction.rollback();
      throw error;
    }
    this.#classes.note(this.#image.identities);
  }

  /**
   * Puts a revision in force. When it returns, new connections are judged by it, and established ones with their next
   * packet. What only the revision before needs is removed afterwards. Calls must not overlap.
   * @throws {RevisionRefused} where it does not fit or cannot be written: the old revision is in force, unchanged
   * @throws {DatapathError} `NumberReused` where `next` was not compiled against `image`
   */
  async apply(next: PolicyImage, options: ApplyOptions = {}): Promise<AppliedRevision> {
    await this.#cleanup;
    if (this.#damaged) {
      this.#http = new HttpTables(this.#all);
      this.#image = restoreImage(this.#all);
      this.#damaged = false;
    } else if (this.#restored) refuseReusedNumbers(this.#image, next);
    const old = this.#image;
    const operations = diff(old, next);
    const removals = operations.findIndex(({ kind }) => leftoverKinds.has(kind));
    const changes = operations.slice(0, removals < 0 ? operations.length : removals);
    const leftovers = removals < 0 ? [] : operations.slice(removals);
    const bridges = await this.#makeRoom(old, next, changes);
    this.#prepareRequests(old, next, changes, bridges);
    this.#change(old, next, changes, bridges, options.tunnelIdentity);
    this.#classes.note(next.identities);
    this.#image = next;
    this.#restored = false;
    const revision = this.#bumpRevision();
    this.#cleanup = this.#cleanUp(leftovers, bridges);
    return { revision, operations: operations.length };
  }

  /** Writes the tables about requests that the change will refer to. @throws {RevisionRefused} */
  #prepareRequests(
    old: PolicyImage,
    next: PolicyImage,
    changes: readonly PolicyOperation[],
    bridges: readonly Bridge[],
  ): void {
    const put = changes.flatMap((change) => (change.kind === 'put-entries' ? [change] : []));
    try {
      for (const { entries } of [...put, ...bridges]) this.#http.prepare([], entries);
      this.#http.prepare(next.ruleSets.values(), []);
    } catch (error) {
      this.#http.keepOnly(old.ruleSets);
      throw error instanceof KernelError ? refusal(error, this.#all) : error;
    }
  }

  #change(
    old: PolicyImage,
    next: PolicyImage,
    changes: readonly PolicyOperation[],
    bridges: readonly Bridge[],
    tunnelIdentity: TunnelIdentity | undefined,
  ): void {
    const transaction = new Transaction();
    const isNew = (identity: IdentityNumber | undefined) =>
      identity !== undefined && identity >= firstFreeIdentity && !old.identities.has(identity);
    let beforeFlip = true;
    const flip = () => {
      // Tunnels follow the rule that policy's diff has for addresses: new identities first, known ones last.
      if (beforeFlip && tunnelIdentity !== undefined) this.#tunnels.identify(transaction, tunnelIdentity, isNew);
      beforeFlip = false;
    };
    try {
      this.#classes.put(transaction, next.identities);
      for (const { set, entries } of bridges) transaction.add(this.#maps.policy, this.#encode(set, entries));
      for (const operation of changes) {
        if (operation.kind === 'put-endpoint' || operation.kind === 'delete-endpoint') flip();
        this.#perform(transaction, operation, old);
      }
      flip();
      if (tunnelIdentity !== undefined) this.#tunnels.identify(transaction, tunnelIdentity, () => true);
    } catch (error) {
      this.#damaged = transaction.rollback().length > 0;
      if (!this.#damaged) this.#http.keepOnly(old.ruleSets);
      if (!(error instanceof KernelError)) throw error;
      throw refusal(error, this.#maps);
    }
  }

  #perform(transaction: Transaction, operation: PolicyOperation, old: PolicyImage): void {
    const { peers, prefixes, ruleSets, policy } = this.#maps;
    switch (operation.kind) {
      case 'put-entries': {
        const entries = this.#encode(operation.set, operation.entries);
        if (old.ruleSets.has(operation.set)) for (const [key, value] of entries) transaction.put(policy, key, value);
        else transaction.add(policy, entries);
        return;
      }
      case 'delete-entries':
        for (const [key] of this.#encode(operation.set, operation.entries)) transaction.remove(policy, key);
        return;
      case 'put-rule-set':
        transaction.put(ruleSets, operation.set.id, {
          ...operation.set,
          matcher: this.#http.matcherOf(operation.set.id),
        });
        return;
      case 'delete-rule-set':
        transaction.remove(ruleSets, operation.set);
        return;
      case 'put-pattern':
        transaction.put(this.#maps.namePatterns, operation.number, { text: operation.pattern });
        return;
      case 'delete-pattern':
        transaction.remove(this.#maps.namePatterns, operation.number);
        return;
      case 'put-matcher':
        putMatcher(this.#maps, transaction, operation.matcher);
        return;
      case 'delete-matcher':
        removeMatcher(this.#maps, transaction, operation.matcher);
        return;
      case 'put-endpoint':
        this.#endpoints.setPolicy(transaction, operation.uid, operation.endpoint);
        return;
      case 'delete-endpoint':
        this.#endpoints.setPolicy(transaction, operation.uid, undefined);
        return;
      case 'put-peer':
        transaction.put(peers, operation.address, placeValue(operation.peer));
        return;
      case 'delete-peer':
        transaction.remove(peers, operation.address);
        return;
      case 'put-prefix':
        transaction.put(prefixes, prefixKeyOf(operation.prefix), placeValue(operation.entry));
        return;
      case 'delete-prefix':
        transaction.remove(prefixes, prefixKeyOf(operation.prefix));
        return;
    }
  }

  /** Connections that were admitted under another revision are judged again with their next packet. */
  #bumpRevision(): number {
    const config = this.#maps.config.get(0);
    if (config === undefined) throw new TypeError('the array map config has no entry 0');
    const revision = config.revision === 0xffff_ffff ? 1 : config.revision + 1;
    this.#maps.config.set(0, { ...config, revision });
    return revision;
  }

  async #cleanUp(leftovers: readonly PolicyOperation[], bridges: readonly Bridge[]): Promise<void> {
    try {
      await this.#removeLeftovers(leftovers, bridges);
    } catch (error) {
      // The new revision is in force all the same. What is left over takes room, until the next revision finds it.
      this.#damaged = true;
      this.#log?.warn({ error }, 'what the policy revision before needed could not be removed');
    }
  }

  async #removeLeftovers(leftovers: readonly PolicyOperation[], bridges: readonly Bridge[]): Promise<void> {
    // A packet that was inside a program may have been judged by the old rule set and noted under the new revision.
    // Once no such packet is left, one more revision has every connection judged by what is in force.
    await waitForPackets();
    this.#bumpRevision();
    const transaction = new Transaction();
    for (const { set, entries } of bridges)
      for (const [key] of this.#encode(set, entries)) transaction.remove(this.#maps.policy, key);
    for (const operation of leftovers) this.#perform(transaction, operation, this.#image);
    this.#http.keepOnly(this.#image.ruleSets);
    this.#classes.keepOnly(this.#image.identities);
  }

  #encode(set: number, entries: readonly PolicyEntry[]): (readonly [PolicyKey, PolicyValue])[] {
    return entries.map((entry) => {
      const { identity, protocol, port, portLength, precedence, rule, verdict, flags } = entry;
      return [
        { set, identity, protocol, port, portLength },
        { precedence, rule, verdict: verdictCodes[verdict], flags, cell: this.#http.cellOf(entry) },
      ];
    });
  }

  /**
   * Makes room for the change, and for bridges where there can be room for them: they are for the comfort of traffic, and
   * the revision is applied without where they do not fit.
   * @returns The bridges that fit.
   * @throws {RevisionRefused} before anything is written
   */
  async #makeRoom(
    old: PolicyImage,
    next: PolicyImage,
    changes: readonly PolicyOperation[],
  ): Promise<readonly Bridge[]> {
    const { policy } = this.#maps;
    const all = bridgesBetween(old, next);
    const needed = entriesAtMost(old, changes);
    const bridged = all.reduce((sum, { entries }) => sum + entries.length, needed);
    const wanted = bridged <= Math.max(policy.capacity, this.#room.most(policy.name) ?? 0) ? all : [];
    const put = changes.flatMap((change) => (change.kind === 'put-entries' ? [change] : []));
    const requests = [...put, ...wanted].flatMap(({ entries }) => entries);
    const others = tableNeeds(this.#maps, old, next);
    await this.#room.make([
      { map: policy.name, entries: wanted === all ? bridged : needed },
      ...others.map(({ table, entries }) => ({ map: table.name, entries })),
      ...this.#http.needs(next.ruleSets.values(), requests),
      this.#classes.needs(next.identities),
    ]);
    for (const { table, entries } of [{ table: policy, entries: needed }, ...others]) {
      const { name: map, capacity } = table;
      if (entries > capacity) throw new RevisionRefused('RevisionRefused', { map, needed: entries, capacity });
    }
    return bridged <= policy.capacity ? wanted : [];
  }
}

/** After a restart: the same number twice, for different things, would mix old and new entries. */
function refuseReusedNumbers(restored: PolicyImage, next: PolicyImage): void {
  const reused =
    [...next.ruleSets.keys()].find((id) => restored.ruleSets.has(id)) ??
    [...next.identities.keys()].find((identity) => restored.identities.has(identity));
  if (reused === undefined) return;
  throw new DatapathError(
    'NumberReused',
    `number ${reused} is in use in the maps: compile the policy against the image that the datapath gives`,
    { data: { number: reused } },
  );
}

function refusal(error: KernelError, maps: PolicyMaps | DatapathMaps): RevisionRefused {
  const map = String(error.data.map);
  const capacity = Object.values(maps).find(({ name }) => name === map)?.capacity ?? 0;
  const full = error.errno === 'E2BIG' || error.errno === 'ENOSPC';
  return new RevisionRefused('RevisionRefused', { map, needed: full ? capacity + 1 : capacity, capacity }, error);
}
