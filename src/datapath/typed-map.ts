import { setImmediate as breathe } from 'node:timers/promises';
import type { BatchResult, BpfMap } from '../kernel/bpf/map.ts';
import type { Codec } from '../kernel/bpf/struct.ts';
import { DatapathError } from './error.ts';

/** After so many milliseconds of copying, the event loop has its turn. */
const turnMs = 5;

/**
 * A map of the kernel with typed keys and values. Not safe to use after its object is closed.
 *
 * A larger one may take its place (src/datapath/growth/growth.ts): from `follow` on every write goes to both, from `promote` on
 * there is the larger one only. Between the two either of them is the whole truth.
 */
export class TypedMap<K, V> {
  #raw: BpfMap;
  /** What takes this one's place soon, and has all of its entries once it is `copied`. */
  #next: BpfMap | undefined;
  readonly #key: Codec<K>;
  readonly #value: Codec<V>;

  /** @throws {DatapathError} `LayoutMismatch` where sizes differ. */
  constructor(raw: BpfMap, key: Codec<K>, value: Codec<V>) {
    const { keySize, valueSize } = raw.info;
    if (keySize !== key.size || valueSize !== value.size)
      throw new DatapathError(
        'LayoutMismatch',
        `map ${raw.name} has keys of ${keySize} and values of ${valueSize} bytes, not ${key.size} and ${value.size}`,
        { data: { map: raw.name } },
      );
    this.#raw = raw;
    this.#key = key;
    this.#value = value;
  }

  /** The map that is in force. To be asked for anew each time, and to be read only where the map may grow. */
  get raw(): BpfMap {
    return this.#raw;
  }

  get name(): string {
    return this.raw.name;
  }

  /** How many entries fit. */
  get capacity(): number {
    return this.raw.info.maxEntries;
  }

  /** From now on what is written here is written to `next` as well, which is empty. */
  follow(next: BpfMap): void {
    this.#next = next;
  }

  /** Gives it up again: nothing may be looking at it. */
  unfollow(): void {
    this.#next = undefined;
  }

  /**
   * Copies all entries to the map that follows. Meanwhile others may write here.
   * @throws {KernelError} `Errno` (ENOMEM)
   */
  async copy(): Promise<void> {
    let turn = performance.now();
    for (const batch of this.#raw.batches()) {
      // Nothing can come between the reading of a batch and its writing: what is older never replaces what is newer.
      this.#next?.writeBatch(batch);
      if (performance.now() - turn < turnMs) continue;
      await breathe();
      turn = performance.now();
    }
  }

  /** Puts the map that follows in this one's place. @returns The one before, whose handle is the caller's to close. */
  promote(): BpfMap {
    const before = this.#raw;
    this.#raw = this.#next ?? before;
    this.#next = undefined;
    return before;
  }

  get(key: K): V | undefined {
    const value = this.raw.lookup(this.#key.encode(key));
    return value === undefined ? undefined : this.#value.decode(value);
  }

  /** @throws {KernelError} `Errno` (E2BIG or ENOSPC where the map is full) */
  set(key: K, value: V): void {
    const [rawKey, rawValue] = [this.#key.encode(key), this.#value.encode(value)];
    const before = this.#next === undefined ? undefined : this.#raw.lookup(rawKey);
    this.#raw.update(rawKey, rawValue);
    try {
      this.#next?.update(rawKey, rawValue);
    } catch (error) {
      if (before === undefined) this.#raw.delete(rawKey);
      else this.#raw.update(rawKey, before);
      throw error;
    }
  }

  /** @returns Whether the key was there. */
  delete(key: K): boolean {
    const rawKey = this.#key.encode(key);
    this.#next?.delete(rawKey);
    return this.#raw.delete(rawKey);
  }

  /** Deletes a key and returns what it had at that moment. */
  take(key: K): V | undefined {
    const rawKey = this.#key.encode(key);
    this.#next?.delete(rawKey);
    const value = this.#raw.take(rawKey);
    return value === undefined ? undefined : this.#value.decode(value);
  }

  /** Writes in order and stops at the first entry that is refused. */
  setMany(entries: readonly (readonly [K, V])[]): BatchResult {
    const raw = entries.map(([key, value]) => [this.#key.encode(key), this.#value.encode(value)] as const);
    const result = this.#raw.updateMany(raw);
    // What the one has is what is written, and to be undone in both where the other refuses it.
    const error = result.error ?? this.#next?.updateMany(raw.slice(0, result.done)).error;
    return error === undefined ? result : { done: result.done, error };
  }

  *entries(): Generator<[K, V]> {
    for (const [key, value] of this.raw.entries()) yield [this.#key.decode(key), this.#value.decode(value)];
  }

  /** All entries, of which only what the decoders take (`Struct.only`) is looked at; with the raw keys, for deleting. */
  *scan<A, B>(key: (bytes: Uint8Array) => A, value: (bytes: Uint8Array) => B): Generator<[A, B, Uint8Array]> {
    for (const [rawKey, rawValue] of this.raw.entries()) yield [key(rawKey), value(rawValue), rawKey];
  }

  /** The sum over the CPUs of what `read` takes from each one's value; for per-CPU maps. */
  sum(key: K, read: (value: V) => bigint): bigint {
    return this.perCpu(key).reduce((sum, value) => sum + read(value), 0n);
  }

  /** Each CPU's value of a per-CPU map. */
  perCpu(key: K): V[] {
    return (this.raw.lookupPerCpu(this.#key.encode(key)) ?? []).map((value) => this.#value.decode(value));
  }
}
