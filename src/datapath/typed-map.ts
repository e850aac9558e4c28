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
