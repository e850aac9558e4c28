import { isDeepStrictEqual } from 'node:util';
import type { AnyObject } from '../../json.ts';
import { objectKey } from '../../kinds.ts';
import { Database, type EventType, parseStored } from './database.ts';
import { History, type StoreEvent } from './history.ts';

/** An object that is in the store. Nobody changes it; an update puts another in its place. */
export interface Stored {
  readonly key: string;
  readonly object: AnyObject;
  readonly json: string;
}

interface Collection {
  readonly byKey: Map<string, Stored>;
  /** The keys in order, made when a list asks and thrown away when a key comes or goes. */
  sorted: readonly Stored[] | undefined;
}

export interface StoreOptions {
  /** A path, or `:memory:`. */
  readonly file: string;
  /** Whether what was acknowledged outlives a crash of the machine. Default true; a crash of this process it does always. */
  readonly fsync?: boolean;
  readonly historyEvents: number;
  readonly historyBytes: number;
}

/**
 * All objects, in memory and on disk, with one revision counter and the changes of late.
 * Every call is done when it returns: durable, visible to readers, and told to listeners, in that order.
 */
export class Store {
  readonly #database: Database;
  readonly #history: History;
  readonly #collections = new Map<string, Collection>();
  readonly #listeners = new Map<string, Set<(event: StoreEvent) => void>>();
  readonly #everything = new Set<(event: StoreEvent) => void>();
  readonly #options: StoreOptions;
  #revision: number;
  #trimmed = 0;

  constructor(options: StoreOptions) {
    this.#options = options;
    this.#database = new Database(options.file, options.fsync);
    this.#revision = this.#database.revision();
    for (const { resource, key, json } of this.#database.objects())
      this.#collection(resource).byKey.set(key, { key, object: parseStored(json), json });
    const kept = [...this.#database.history()];
    const limit = { events: options.historyEvents, bytes: options.historyBytes };
    this.#history = new History(limit, (kept[0]?.revision ?? this.#revision + 1) - 1);
    for (const { previousJson, json, ...change } of kept)
      this.#history.push({
        ...change,
        json,
        object: parseStored(json),
        previous: previousJson === undefined ? undefined : parseStored(previousJson),
      });
  }

  /** The resourceVersion of the newest change in the whole store. */
  get revision(): number {
    return this.#revision;
  }

  get oldestRevision(): number {
    return this.#history.floor;
  }

  /** @param resource `group/plural`; @param key `namespace/name` or `name`. */
  get(resource: string, key: string): Stored | undefined {
    return this.#collections.get(resource)?.byKey.get(key);
  }

  /** All of one kind, ordered by key. */
  list(resource: string): readonly Stored[] {
    const collection = this.#collection(resource);
    collection.sorted ??= [...collection.byKey.values()].sort(byKey);
    return collection.sorted;
  }

  /** All of one kind, as they come. */
  values(resource: string): Iterable<Stored> {
    return this.#collection(resource).byKey.values();
  }

  resources(): Iterable<string> {
    return this.#collections.keys();
  }

  /**
   * The list as it was at `revision`, by undoing the changes since.
   * @returns undefined where the history does not reach back so far.
   */
  listAt(resource: string, revision: number): readonly Stored[] | undefined {
    if (revision === this.#revision) return this.list(resource);
    const since = this.#history.after(revision);
    if (since === undefined) return undefined;
    const then = new Map(this.#collection(resource).byKey);
    for (const event of since.reverse()) {
      if (event.resource !== resource) continue;
      if (event.previous === undefined) then.delete(event.key);
      else then.set(event.key, { key: event.key, object: event.previous, json: JSON.stringify(event.previous) });
    }
    return [...then.values()].sort(byKey);
  }

  /** @returns undefined where the history does not reach back to `revision`. */
  eventsAfter(revision: number): StoreEvent[] | undefined {
    return this.#history.after(revision);
  }

  /** Puts `object` in under its key; its resourceVersion is set here. @returns What is stored. */
  put(resource: string, object: AnyObject): Stored {
    const key = objectKey(object);
    const previous = this.get(resource, key);
    return this.#change(previous === undefined ? 'ADDED' : 'MODIFIED', resource, key, object, previous);
  }

  /**
   * @param last What the object was in the end, where that is not what is stored.
   * @returns The last state, with the resourceVersion of the deletion; undefined where there is no such object.
   */
  remove(resource: string, key: string, last?: AnyObject): Stored | undefined {
    const previous = this.get(resource, key);
    return previous && this.#change('DELETED', resource, key, last ?? previous.object, previous);
  }

  /** Calls `listener` for every change from now on, of one kind or of all. @returns Ends it. */
  subscribe(resource: string | undefined, listener: (event: StoreEvent) => void): () => void {
    let set = this.#everything;
    if (resource !== undefined) {
      set = this.#listeners.get(resource) ?? new Set();
      this.#listeners.set(resource, set);
    }
    set.add(listener);
    return () => set.delete(listener);
  }

  close(): void {
    this.#database.close();
  }

  #change(type: EventType, resource: string, key: string, given: AnyObject, previous: Stored | undefined): Stored {
    const revision = this.#revision + 1;
    const object = { ...given, metadata: { ...given.metadata, resourceVersion: String(revision) } };
    const json = JSON.stringify(object);
    this.#database.write({ revision, type, resource, key, json, previousJson: previous?.json });
    this.#revision = revision;
    const stored = { key, object, json };
    const collection = this.#collection(resource);
    if (type === 'DELETED') collection.byKey.delete(key);
    else collection.byKey.set(key, stored);
    collection.sorted = undefined;
    const event = { revision, type, resource, key, object, json, previous: previous?.object };
    this.#history.push(event);
    this.#trim();
    for (const listener of this.#listeners.get(resource) ?? []) listener(event);
    for (const listener of this.#everything) listener(event);
    return stored;
  }

  #trim(): void {
    if (this.#history.floor - this.#trimmed < this.#options.historyEvents / 4) return;
    this.#trimmed = this.#history.floor;
    this.#database.trimHistory(this.#trimmed + 1);
  }

  #collection(resource: string): Collection {
    let collection = this.#collections.get(resource);
    if (collection === undefined) {
      collection = { byKey: new Map(), sorted: undefined };
      this.#collections.set(resource, collection);
    }
    return collection;
  }
}

/** Whether two states of an object differ in nothing but their resourceVersion and the times in managedFields. */
export function sameContent(a: AnyObject, b: AnyObject): boolean {
  return isDeepStrictEqual(bare(a), bare(b));
}

function bare(object: AnyObject): unknown {
  const { resourceVersion: _version, managedFields, ...metadata } = object.metadata;
  const managers = managedFields?.map(({ time: _time, ...entry }) => entry);
  return { ...object, metadata: { ...metadata, managers } };
}

function byKey(a: Stored, b: Stored): number {
  return a.key < b.key ? -1 : a.key > b.key ? 1 : 0;
}
