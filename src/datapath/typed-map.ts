import type { BatchResult, BpfMap } from '../kernel/bpf/map.ts';
import type { Codec } from '../kernel/bpf/struct.ts';
import { DatapathError } from './error.ts';

/** A map of the kernel with typed keys and values. Not safe to use after its object is closed. */
export class TypedMap<K, V> {
  readonly raw: BpfMap;
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
    this.raw = raw;
    this.#key = key;
    this.#value = value;
  }

  get name(): string {
    return this.raw.name;
  }

  /** How many entries fit. */
  get capacity(): number {
    return this.raw.info.maxEntries;
  }

  get(key: K): V | undefined {
    const value = this.raw.lookup(this.#key.encode(key));
    return value === undefined ? undefined : this.#value.decode(value);
  }

  /** @throws {KernelError} `Errno` (E2BIG or ENOSPC where the map is full) */
  set(key: K, value: V): void {
    this.raw.update(this.#key.encode(key), this.#value.encode(value));
  }

  /** @returns Whether the key was there. */
  delete(key: K): boolean {
    return this.raw.delete(this.#key.encode(key));
  }

  /** Deletes a key and returns what it had at that moment. */
  take(key: K): V | undefined {
    const value = this.raw.take(this.#key.encode(key));
    return value === undefined ? undefined : this.#value.decode(value);
  }

  /** Writes in order and stops at the first entry that is refused. */
  setMany(entries: readonly (readonly [K, V])[]): BatchResult {
    return this.raw.updateMany(entries.map(([key, value]) => [this.#key.encode(key), this.#value.encode(value)]));
  }

  *entries(): Generator<[K, V]> {
    for (const [key, value] of this.raw.entries()) yield [this.#key.decode(key), this.#value.decode(value)];
  }

  /** The sum over the CPUs of what `read` takes from each one's value; for per-CPU maps. */
  sum(key: K, read: (value: V) => bigint): bigint {
    const values = this.raw.lookupPerCpu(this.#key.encode(key)) ?? [];
    return values.reduce((sum, bytes) => sum + read(this.#value.decode(bytes)), 0n);
  }
}
