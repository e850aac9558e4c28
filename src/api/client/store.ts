import type { KubeObject, Live } from '../kinds.ts';
import { ApiError } from './error.ts';
import type { Change, Entry, ObjectStore, ReflectorOptions } from './types.ts';

type Indexes<T extends KubeObject> = NonNullable<ReflectorOptions<T>['indexes']>;

/** The content of a reflector: entries by key, indexes, listeners. Whoever fills it calls `replace`, `put` and `remove`. */
export class EntryStore<T extends KubeObject> implements ObjectStore<T> {
  readonly #entries = new Map<string, Entry<T>>();
  readonly #indexers: Indexes<T>;
  readonly #indexes = new Map<string, Map<string, Map<string, Entry<T>>>>();
  readonly #listeners = new Set<(change: Change<T>) => void>();
  readonly #onListenerError: (error: unknown) => void;

  /** @param onListenerError Is told what a listener threw; the others are called all the same. */
  constructor(indexes: Indexes<T>, onListenerError: (error: unknown) => void) {
    this.#indexers = indexes;
    this.#onListenerError = onListenerError;
    for (const name of Object.keys(indexes)) this.#indexes.set(name, new Map());
  }

  get size(): number {
    return this.#entries.size;
  }

  get(key: string): Entry<T> | undefined {
    return this.#entries.get(key);
  }

  entries(): Iterable<Entry<T>> {
    return this.#entries.values();
  }

  objects(): Live<T>[] {
    return [...this.#entries.values()].flatMap(({ object }) => (object === undefined ? [] : [object]));
  }

  byIndex(index: string, value: string): Entry<T>[] {
    const values = this.#indexes.get(index);
    if (values === undefined) throw new ApiError('BadRequest', `there is no index ${JSON.stringify(index)}`);
    return [...(values.get(value)?.values() ?? [])];
  }

  onChange(listener: (change: Change<T>) => void): () => void {
    for (const entry of this.#entries.values()) this.#call(listener, { kind: 'add', entry, previous: undefined });
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Makes the content this list, by the fewest changes. */
  replace(list: readonly Entry<T>[]): void {
    const keys = new Set(list.map(({ key }) => key));
    for (const key of [...this.#entries.keys()]) if (!keys.has(key)) this.remove(key);
    for (const entry of list) this.put(entry);
  }

  /** Puts an entry in; one that is there in the same version changes nothing. */
  put(entry: Entry<T>): void {
    const previous = this.#entries.get(entry.key);
    if (previous !== undefined && previous.raw.metadata.uid !== entry.raw.metadata.uid) {
      // Another object has the name by now. Whoever listens must not take the two for one.
      this.remove(entry.key);
      this.put(entry);
      return;
    }
    if (previous?.raw.metadata.resourceVersion === entry.raw.metadata.resourceVersion && previous !== undefined) return;
    if (previous !== undefined) this.#unindex(previous);
    this.#entries.set(entry.key, entry);
    this.#index(entry);
    this.#tell({ kind: previous === undefined ? 'add' : 'update', entry, previous });
  }

  /** @param last The last state, where it is known. */
  remove(key: string, last?: Entry<T>): void {
    const previous = this.#entries.get(key);
    if (previous === undefined) return;
    this.#entries.delete(key);
    this.#unindex(previous);
    this.#tell({ kind: 'delete', entry: last ?? previous, previous });
  }

  #index(entry: Entry<T>): void {
    for (const [name, valuesOf] of Object.entries(this.#indexers))
      for (const value of valuesOf(entry)) {
        const values = this.#indexes.get(name);
        const members = values?.get(value) ?? new Map<string, Entry<T>>();
        members.set(entry.key, entry);
        values?.set(value, members);
      }
  }

  #unindex(entry: Entry<T>): void {
    for (const [name, valuesOf] of Object.entries(this.#indexers))
      for (const value of valuesOf(entry)) {
        const values = this.#indexes.get(name);
        const members = values?.get(value);
        members?.delete(entry.key);
        if (members?.size === 0) values?.delete(value);
      }
  }

  #tell(change: Change<T>): void {
    for (const listener of this.#listeners) this.#call(listener, change);
  }

  #call(listener: (change: Change<T>) => void, change: Change<T>): void {
    try {
      listener(change);
    } catch (error) {
      this.#onListenerError(error);
    }
  }
}
