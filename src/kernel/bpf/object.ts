import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { errnoError, errnoName, KernelError } from '../error.ts';
import { addressOf, copyBytes, libbpf, type Pointer, structs } from '../ffi/libbpf.ts';
import { lastErrno } from '../ffi/libc.ts';
import { Btf } from './btf.ts';
import { verifierSummary, withLibbpfMessages } from './log.ts';
import { BpfMap } from './map.ts';
import { checkPin } from './pin.ts';
import { BpfProgram } from './program.ts';
import type { MapSpec, ProgramSpec } from './spec.ts';

export interface LoadOptions {
  /** A directory on a BPF file system: every map is reused from its pin there, or made and pinned. */
  readonly pinDir?: string;
  /** Maps of objects loaded before, shared by name without any pin. */
  readonly maps?: ReadonlyMap<string, BpfMap>;
  /** Capacity by map name, in place of what the object says. */
  readonly maxEntries?: Readonly<Record<string, number>>;
  /** Maps whose pins are reused with whatever capacity they have. */
  readonly growing?: ReadonlySet<string>;
}

const verifierLogSize = 8 << 20;

/** What an object file says: pure data, the same on every host. */
export class BpfObject {
  readonly path: string;
  readonly maps: ReadonlyMap<string, MapSpec>;
  readonly programs: ReadonlyMap<string, ProgramSpec>;
  readonly btf: Btf;
  readonly #bytes: Uint8Array;

  private constructor(path: string, bytes: Uint8Array, handle: Pointer) {
    this.path = path;
    this.#bytes = bytes;
    this.maps = new Map(iterate(handle, libbpf.object_next_map).map((map) => named(mapSpec(map))));
    this.programs = new Map(iterate(handle, libbpf.object_next_program).map((program) => named(programSpec(program))));
    this.btf = readBtf(handle, path);
  }

  /**
   * Reads an object file; nothing reaches the kernel.
   * @throws {KernelError} `Errno` (ENOENT), `BadObject`
   */
  static open(path: string): BpfObject {
    let bytes: Uint8Array;
    try {
      bytes = readFileSync(path);
    } catch (cause) {
      const data = { operation: 'open the object', object: path, errno: 'ENOENT' };
      throw new KernelError('Errno', `cannot open the BPF object ${path}: is it built (make bpf)?`, data, cause);
    }
    const handle = openHandle(path, bytes);
    try {
      return new BpfObject(path, bytes, handle);
    } finally {
      libbpf.object_close(handle);
    }
  }

  /**
   * Makes (or reuses) the maps and has the kernel verify the programs. May be called any number of times.
   * @throws {KernelError} `Verifier`, `IncompatiblePin`, `Errno`
   */
  load(options: LoadOptions = {}): LoadedObject {
    const { handle, log } = this.#prepare(options);
    return this.#loaded(handle, log, () => withLibbpfMessages(() => libbpf.object_load(handle)));
  }

  /**
   * The same, on another thread: the verifier takes a tenth of a second for a large program, and more where machines are
   * slow. What libbpf says is not collected; what the verifier says is.
   * @throws {KernelError} as `load`
   */
  async loadBeside(options: LoadOptions = {}): Promise<LoadedObject> {
    const { handle, log } = this.#prepare(options);
    let result: number;
    try {
      result = await new Promise<number>((resolve, reject) => {
        libbpf.object_load.async(handle, (error: unknown, value: number) =>
          error === null || error === undefined ? resolve(value) : reject(error),
        );
      });
    } catch (error) {
      libbpf.object_close(handle);
      throw error;
    }
    return this.#loaded(handle, log, () => ({ result, messages: [] }));
  }

  #prepare(options: LoadOptions): { handle: Pointer; log: Uint8Array } {
    const log = new Uint8Array(verifierLogSize);
    const handle = openHandle(this.path, this.#bytes, log);
    try {
      for (const map of iterate(handle, libbpf.object_next_map)) this.#configureMap(map, options);
      return { handle, log };
    } catch (error) {
      libbpf.object_close(handle);
      throw error;
    }
  }

  #loaded(handle: Pointer, log: Uint8Array, load: () => { result: number; messages: readonly string[] }): LoadedObject {
    try {
      const { result, messages } = load();
      if (result < 0) throw loadFailure(this.path, -result, messages, log);
      return new LoadedObject(this, handle);
    } catch (error) {
      libbpf.object_close(handle);
      throw error;
    }
  }

  #configureMap(map: Pointer, options: LoadOptions): void {
    const spec = mapSpec(map);
    const object = `map ${spec.name} of ${this.path}`;
    const check = (result: number, operation: string) => {
      if (result < 0) throw errnoError(-result, operation, object);
    };
    const entries = options.maxEntries?.[spec.name];
    if (entries !== undefined) check(libbpf.map_set_max_entries(map, entries), 'set the capacity');
    if (spec.internal) return;
    const shared = options.maps?.get(spec.name);
    if (shared !== undefined) {
      check(libbpf.map_set_pin_path(map, null), 'clear the pin');
      check(libbpf.map_reuse_fd(map, shared.fd), 'share the map');
      return;
    }
    const path = options.pinDir === undefined ? null : `${options.pinDir}/${spec.name}`;
    // The object's own pinning attribute would pin at a place of libbpf's choice.
    check(libbpf.map_set_pin_path(map, path), 'set the pin');
    const pinned = path === null ? undefined : checkPin(path, mapSpec(map), this.btf, options.growing?.has(spec.name));
    if (pinned !== undefined) check(libbpf.map_set_max_entries(map, pinned), 'take over the capacity');
  }
}

/** An object in the kernel. close() gives up this process's handles: pinned maps and attached programs live on. */
export class LoadedObject {
  readonly spec: BpfObject;
  readonly maps: ReadonlyMap<string, BpfMap>;
  readonly programs: ReadonlyMap<string, BpfProgram>;
  #handle: Pointer | undefined;

  constructor(spec: BpfObject, handle: Pointer) {
    this.spec = spec;
    this.#handle = handle;
    this.maps = new Map(
      iterate(handle, libbpf.object_next_map).map((map) =>
        named(new BpfMap(libbpf.map_fd(map), libbpf.map_name(map), false)),
      ),
    );
    this.programs = new Map(
      iterate(handle, libbpf.object_next_program).map((program) =>
        named(new BpfProgram(libbpf.program_fd(program), libbpf.program_name(program))),
      ),
    );
  }

  /** @throws {KernelError} `BadObject` */
  map(name: string): BpfMap {
    return this.maps.get(name) ?? missing('map', name, this.spec.path);
  }

  /** @throws {KernelError} `BadObject` */
  program(name: string): BpfProgram {
    return this.programs.get(name) ?? missing('program', name, this.spec.path);
  }

  close(): void {
    if (this.#handle === undefined) return;
    for (const map of this.maps.values()) map.close();
    libbpf.object_close(this.#handle);
    this.#handle = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function openHandle(path: string, bytes: Uint8Array, log?: Uint8Array): Pointer {
  const name = new TextEncoder().encode(`${basename(path).replace(/\W.*$/, '')}\0`);
  const { result, messages } = withLibbpfMessages(() => {
    const handle = libbpf.object_open_mem(bytes, bytes.length, {
      sz: structs.bpf_object_open_opts.size,
      object_name: addressOf(name),
      relaxed_maps: false,
      pin_root_path: null,
      reserved: 0,
      kconfig: null,
      btf_custom_path: null,
      kernel_log_buf: log === undefined ? null : addressOf(log),
      kernel_log_size: log?.length ?? 0,
      kernel_log_level: 0,
    });
    return { handle, errno: lastErrno() };
  });
  if (result.handle === null)
    throw new KernelError('BadObject', `${path} is not a BPF object: ${messages.at(-1) ?? errnoName(result.errno)}`, {
      operation: 'open the object',
      object: path,
      errno: errnoName(result.errno),
      messages,
    });
  return result.handle;
}

function readBtf(handle: Pointer, path: string): Btf {
  const size = new Uint32Array(1);
  const btf = libbpf.object_btf(handle);
  const data = btf === null ? null : libbpf.btf_raw_data(btf, size);
  if (data === null)
    throw new KernelError('BadObject', `${path} has no type information: compile it with -g`, {
      operation: 'read the types',
      object: path,
    });
  return new Btf(copyBytes(data, size[0] ?? 0));
}

function mapSpec(map: Pointer): MapSpec {
  return {
    name: libbpf.map_name(map),
    type: libbpf.map_type(map),
    keySize: libbpf.map_key_size(map),
    valueSize: libbpf.map_value_size(map),
    maxEntries: libbpf.map_max_entries(map),
    flags: libbpf.map_flags(map),
    internal: libbpf.map_is_internal(map),
    btfKeyType: libbpf.map_btf_key(map),
    btfValueType: libbpf.map_btf_value(map),
  };
}

function programSpec(program: Pointer): ProgramSpec {
  return {
    name: libbpf.program_name(program),
    section: libbpf.program_section_name(program),
    instructions: libbpf.program_insn_cnt(program),
  };
}

function loadFailure(path: string, errno: number, messages: readonly string[], logBytes: Uint8Array): KernelError {
  const log = new TextDecoder().decode(logBytes.subarray(0, logBytes.indexOf(0)));
  const said = messages.find((line) => /^prog '/.test(line)) ?? messages[0] ?? errnoName(errno);
  const data = { operation: 'load', object: path, errno: errnoName(errno), messages };
  if (log === '') return new KernelError('Errno', `cannot load ${path}: ${said} (${errnoName(errno)})`, data);
  const program = /^prog '([^']+)'/.exec(said)?.[1];
  const what = program === undefined ? path : `program ${program} of ${path}`;
  return new KernelError('Verifier', `the kernel refuses ${what}: ${verifierSummary(log)} (${errnoName(errno)})`, {
    ...data,
    program,
    log,
  });
}

function missing(kind: string, name: string, path: string): never {
  throw new KernelError('BadObject', `${path} has no ${kind} ${name}`, { operation: `find the ${kind}`, object: name });
}

function iterate(handle: Pointer, next: (object: Pointer, item: Pointer | null) => Pointer | null): Pointer[] {
  const items: Pointer[] = [];
  for (let item = next(handle, null); item !== null; item = next(handle, item)) items.push(item);
  return items;
}

function named<T extends { readonly name: string }>(item: T): [string, T] {
  return [item.name, item];
}
