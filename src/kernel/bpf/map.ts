import { closeSync, readFileSync } from 'node:fs';
import { errnoError, errnoName, type KernelError } from '../error.ts';
import { layouts, libbpf, readName } from '../ffi/libbpf.ts';
import { lastErrno } from '../ffi/libc.ts';

/** Map types that Myelin uses (enum bpf_map_type). */
export const mapTypes = {
  hash: 1,
  array: 2,
  programArray: 3,
  percpuHash: 5,
  percpuArray: 6,
  lruHash: 9,
  lruPercpuHash: 10,
  lpmTrie: 11,
  reuseportSockets: 20,
  ringbuf: 27,
} as const;

/** What the kernel says of a map (struct bpf_map_info). */
export interface MapInfo {
  readonly id: number;
  readonly name: string;
  readonly type: number;
  readonly keySize: number;
  readonly valueSize: number;
  readonly maxEntries: number;
  readonly flags: number;
  /** 0 where the map was made without type information. */
  readonly btfId: number;
  readonly btfKeyType: number;
  readonly btfValueType: number;
}

export const updateFlags = { any: 0, noExist: 1, exist: 2 } as const;

/** How far an update of many entries came. */
export interface BatchResult {
  /** Entries written (or deleted), always a prefix of what was given. */
  readonly done: number;
  /** Why it stopped before the end. */
  readonly error?: KernelError;
}

/** Entries as the kernel hands them out: `count` keys one after the other, and as many values. */
export interface Batch {
  readonly count: number;
  readonly keys: Uint8Array;
  readonly values: Uint8Array;
}

const ENOENT = 'ENOENT';
const batchSize = 512;

/** @returns struct bpf_map_info of an open map. */
export function mapInfo(fd: number, object: string): MapInfo {
  const at = layouts.bpf_map_info;
  const info = new Uint8Array(at.size);
  const result = libbpf.obj_info(fd, info, Uint32Array.of(info.length));
  if (result < 0) throw errnoError(-result, 'read the properties', object);
  const view = new DataView(info.buffer);
  const word = (offset: number) => view.getUint32(offset, true);
  return {
    type: word(at.type),
    id: word(at.id),
    keySize: word(at.key_size),
    valueSize: word(at.value_size),
    maxEntries: word(at.max_entries),
    flags: word(at.map_flags),
    name: readName(info, at.name),
    btfId: word(at.btf_id),
    btfKeyType: word(at.btf_key_type_id),
    btfValueType: word(at.btf_value_type_id),
  };
}

let cpus: number | undefined;

/** @returns How many CPUs the kernel provides for: the number of values in an entry of a per-CPU map. */
export function possibleCpus(): number {
  cpus ??= libbpf.num_possible_cpus();
  return cpus;
}

/**
 * A map of the kernel. Keys and values are bytes; their layouts are src/datapath's business.
 * Every method throws {KernelError} `Errno` that names the map. Not safe to use after close().
 */
export class BpfMap {
  readonly name: string;
  readonly info: MapInfo;
  /** Bytes of one value as the system call moves it: of a per-CPU map, all CPUs' values, each padded to 8 bytes. */
  readonly valueBytes: number;
  #openFd: number;
  readonly #owned: boolean;

  /** @param owned Whether close() closes `fd`; a map of a loaded object belongs to the object. */
  constructor(fd: number, name: string, owned: boolean) {
    this.#openFd = fd;
    this.name = name;
    this.#owned = owned;
    this.info = mapInfo(fd, `map ${name}`);
    this.valueBytes = isPerCpu(this.info.type)
      ? Math.ceil(this.info.valueSize / 8) * 8 * possibleCpus()
      : this.info.valueSize;
  }

  /** Opens a map by its pin. The result must be closed. */
  static openPinned(path: string): BpfMap {
    const fd = libbpf.obj_get(path);
    if (fd < 0) throw errnoError(-fd, 'open the pinned map', path);
    try {
      return new BpfMap(fd, mapInfo(fd, path).name, true);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** @returns The same map with a handle of its own, which must be closed: it outlives the object that made this one. */
  another(): BpfMap {
    // The descriptor of a dup() would be inherited by programs that this process starts; the kernel's own are not.
    const fd = libbpf.map_get_fd_by_id(this.info.id);
    if (fd < 0) throw errnoError(-fd, 'open once more', `map ${this.name}`);
    return new BpfMap(fd, this.name, true);
  }

  /** Bytes of the kernel's memory that it takes now; before Linux 6.4, that it takes when it is full. */
  get memory(): number {
    const [, bytes = '0'] = /^memlock:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${this.fd}`, 'utf8')) ?? [];
    return Number(bytes);
  }

  get fd(): number {
    if (this.#openFd < 0) throw errnoError(9, 'use a closed map', `map ${this.name}`);
    return this.#openFd;
  }

  lookup(key: Uint8Array): Uint8Array | undefined {
    this.#checkSize('key', key, this.info.keySize);
    const value = new Uint8Array(this.valueBytes);
    const result = libbpf.lookup(this.fd, key, value);
    if (result === 0) return value;
    if (errnoName(-result) === ENOENT) return undefined;
    throw this.#failure(-result, 'look up a key');
  }

  /** @returns The value of each CPU in a per-CPU map, or undefined where the key is not there. */
  lookupPerCpu(key: Uint8Array): Uint8Array[] | undefined {
    const all = this.lookup(key);
    if (all === undefined) return undefined;
    const stride = this.valueBytes / possibleCpus();
    return Array.from({ length: possibleCpus() }, (_, cpu) =>
      all.subarray(cpu * stride, cpu * stride + this.info.valueSize),
    );
  }

  /** @param flags `updateFlags`; without, the entry is written whether or not it was there. */
  update(key: Uint8Array, value: Uint8Array, flags: number = updateFlags.any): void {
    this.#checkSize('key', key, this.info.keySize);
    this.#checkSize('value', value, this.valueBytes);
    const result = libbpf.update(this.fd, key, value, flags);
    if (result < 0) throw this.#failure(-result, 'write an entry');
  }

  /** @returns Whether the key was there. */
  delete(key: Uint8Array): boolean {
    this.#checkSize('key', key, this.info.keySize);
    const result = libbpf.remove(this.fd, key);
    if (result === 0) return true;
    if (errnoName(-result) === ENOENT) return false;
    throw this.#failure(-result, 'delete a key');
  }

  /** Deletes a key. @returns The value that it had, at the very moment of its deletion; undefined where it was not there. */
  take(key: Uint8Array): Uint8Array | undefined {
    this.#checkSize('key', key, this.info.keySize);
    const value = new Uint8Array(this.valueBytes);
    const result = libbpf.lookup_and_delete(this.fd, key, value);
    if (result === 0) return value;
    if (errnoName(-result) === ENOENT) return undefined;
    throw this.#failure(-result, 'take out a key');
  }

  /**
   * Writes entries in their order and stops at the first that the kernel refuses.
   * @returns How many are written: the caller undoes a prefix.
   */
  updateMany(entries: readonly (readonly [Uint8Array, Uint8Array])[]): BatchResult {
    const { keySize } = this.info;
    let done = 0;
    while (done < entries.length) {
      const part = entries.slice(done, done + batchSize);
      const keys = new Uint8Array(part.length * keySize);
      const values = new Uint8Array(part.length * this.valueBytes);
      for (const [i, [key, value]] of part.entries()) {
        this.#checkSize('key', key, keySize);
        this.#checkSize('value', value, this.valueBytes);
        keys.set(key, i * keySize);
        values.set(value, i * this.valueBytes);
      }
      const count = Uint32Array.of(part.length);
      const result = libbpf.update_batch(this.fd, keys, values, count, batchOptions());
      done += Math.min(count[0] ?? 0, part.length);
      if (result < 0) return { done, error: this.#failure(-result, 'write an entry') };
    }
    return { done };
  }

  /**
   * Writes entries as `batches` gives them, of a map of the same layout.
   * @throws {KernelError} `Errno` where one of them is refused: those before it are written
   */
  writeBatch({ count, keys, values }: Batch): void {
    this.#checkSize('batch of keys', keys, count * this.info.keySize);
    this.#checkSize('batch of values', values, count * this.valueBytes);
    if (count === 0) return;
    const result = libbpf.update_batch(this.fd, keys, values, Uint32Array.of(count), batchOptions());
    if (result < 0) throw this.#failure(-result, 'write an entry');
  }

  /** A copy of the whole map. An entry that changes or goes while it is read may or may not be seen. */
  *entries(): Generator<[Uint8Array, Uint8Array]> {
    const { keySize } = this.info;
    for (const { count, keys, values } of this.batches())
      for (let i = 0; i < count; i++)
        yield [
          keys.subarray(i * keySize, (i + 1) * keySize),
          values.subarray(i * this.valueBytes, (i + 1) * this.valueBytes),
        ];
  }

  /** The same, some hundred at a time: each batch is what the map has at the moment when it is taken. */
  *batches(): Generator<Batch> {
    const { keySize } = this.info;
    // A hash's batch token is a u32 bucket number, every other map's is a key.
    let from: Uint8Array | null = null;
    let room = Math.min(batchSize, Math.max(1, this.info.maxEntries));
    for (;;) {
      const next = new Uint8Array(Math.max(4, keySize));
      const keys = new Uint8Array(room * keySize);
      const values = new Uint8Array(room * this.valueBytes);
      const read = Uint32Array.of(room);
      const result = libbpf.lookup_batch(this.fd, from, next, keys, values, read, null);
      const error = result < 0 ? errnoName(-result) : undefined;
      if (error === 'ENOSPC') {
        // One bucket holds more than there is room for.
        room *= 4;
        continue;
      }
      if (from === null && (error === 'EINVAL' || error === 'ENOTSUPP' || error === 'EOPNOTSUPP')) {
        for (const [key, value] of this.#entriesOneByOne()) yield { count: 1, keys: key, values: value };
        return;
      }
      if (error !== undefined && error !== ENOENT) throw this.#failure(-result, 'read the entries');
      const [count = 0] = read;
      yield { count, keys: keys.subarray(0, count * keySize), values: values.subarray(0, count * this.valueBytes) };
      if (error === ENOENT || count === 0) return;
      from = next;
    }
  }

  /** Pins the map at a path on a BPF file system. */
  pin(path: string): void {
    const result = libbpf.obj_pin(this.fd, path);
    if (result < 0) throw errnoError(-result, `pin map ${this.name}`, path);
  }

  close(): void {
    if (this.#openFd >= 0 && this.#owned) closeSync(this.#openFd);
    this.#openFd = -1;
  }

  *#entriesOneByOne(): Generator<[Uint8Array, Uint8Array]> {
    let key: Uint8Array | null = null;
    for (;;) {
      const next: Uint8Array = new Uint8Array(this.info.keySize);
      if (libbpf.next_key(this.fd, key, next) < 0) {
        const errno = lastErrno();
        if (errnoName(errno) === ENOENT) return;
        throw this.#failure(errno, 'read the entries');
      }
      const value = this.lookup(next);
      if (value !== undefined) yield [next, value];
      key = next;
    }
  }

  #checkSize(what: string, bytes: Uint8Array, size: number): void {
    // The kernel would read past the end of a short array.
    if (bytes.length !== size)
      throw new RangeError(`map ${this.name}: a ${what} has ${size} bytes, not ${bytes.length}`);
  }

  #failure(errno: number, operation: string): KernelError {
    return errnoError(errno, operation, `map ${this.name}`, { map: this.name, maxEntries: this.info.maxEntries });
  }
}

function isPerCpu(type: number): boolean {
  return type === mapTypes.percpuArray || type === mapTypes.percpuHash || type === mapTypes.lruPercpuHash;
}

/** struct bpf_map_batch_opts {sz, elem_flags, flags}. */
function batchOptions(): BigUint64Array {
  return BigUint64Array.of(BigInt(layouts.bpf_map_batch_opts.size), 0n, 0n);
}
