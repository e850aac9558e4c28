import koffi, { type KoffiFunc } from 'koffi';
import { KernelError } from '../error.ts';

/**
 * libbpf 1.x (the distribution's libbpf.so.1), as prototypes. Conventions of libbpf 1.x: a function that returns int
 * returns -errno; one that returns a pointer returns null and sets errno.
 * Structs whose first member is `sz` are libbpf's own extensible ones; test/kernel/abi.test.ts holds every
 * struct of this file against the C headers.
 */
let library: ReturnType<typeof koffi.load>;
try {
  library = koffi.load('libbpf.so.1');
} catch (cause) {
  throw new KernelError(
    'Missing',
    'libbpf.so.1 cannot be loaded: install the package libbpf1 (version 1.0 or newer)',
    { operation: 'load', object: 'libbpf.so.1' },
    cause,
  );
}

function bind<F extends (...args: never[]) => unknown>(prototype: string): KoffiFunc<F> {
  return library.func(prototype) as unknown as KoffiFunc<F>;
}

/** A C pointer; 0 never occurs, null stands for it. */
export type Pointer = bigint;

export const structs = {
  bpf_object_open_opts: koffi.struct('bpf_object_open_opts', {
    sz: 'size_t',
    object_name: 'void *',
    relaxed_maps: 'bool',
    pin_root_path: 'void *',
    reserved: 'uint32_t',
    kconfig: 'void *',
    btf_custom_path: 'void *',
    kernel_log_buf: 'void *',
    kernel_log_size: 'size_t',
    kernel_log_level: 'uint32_t',
  }),
  bpf_tc_hook: koffi.struct('bpf_tc_hook', {
    sz: 'size_t',
    ifindex: 'int',
    attach_point: 'int',
    parent: 'uint32_t',
  }),
  bpf_tc_opts: koffi.struct('bpf_tc_opts', {
    sz: 'size_t',
    prog_fd: 'int',
    flags: 'uint32_t',
    prog_id: 'uint32_t',
    handle: 'uint32_t',
    priority: 'uint32_t',
  }),
  bpf_test_run_opts: koffi.struct('bpf_test_run_opts', {
    sz: 'size_t',
    data_in: 'void *',
    data_out: 'void *',
    data_size_in: 'uint32_t',
    data_size_out: 'uint32_t',
    ctx_in: 'void *',
    ctx_out: 'void *',
    ctx_size_in: 'uint32_t',
    ctx_size_out: 'uint32_t',
    retval: 'uint32_t',
    repeat: 'int',
    duration: 'uint32_t',
    flags: 'uint32_t',
    cpu: 'uint32_t',
    batch_size: 'uint32_t',
  }),
} as const;

export interface TcHook {
  sz: number;
  ifindex: number;
  attach_point: number;
  parent: number;
}

export interface TcOpts {
  sz: number;
  prog_fd: number;
  flags: number;
  prog_id: number;
  handle: number;
  priority: number;
}

/** Where a test run's results are read from; pointers go in as byte arrays and are not read back. */
export interface TestRunOpts {
  sz: number;
  data_in: Uint8Array | bigint | null;
  data_out: Uint8Array | bigint | null;
  data_size_in: number;
  data_size_out: number;
  ctx_in: Uint8Array | bigint | null;
  ctx_out: Uint8Array | bigint | null;
  ctx_size_in: number;
  ctx_size_out: number;
  retval: number;
  repeat: number;
  duration: number;
  flags: number;
  cpu: number;
  batch_size: number;
}

/** Sizes and offsets in structs of the kernel (include/uapi/linux/bpf.h) that are read and written byte by byte. */
export const layouts = {
  bpf_map_info: {
    size: 88,
    type: 0,
    id: 4,
    key_size: 8,
    value_size: 12,
    max_entries: 16,
    map_flags: 20,
    name: 24,
    btf_id: 64,
    btf_key_type_id: 68,
    btf_value_type_id: 72,
  },
  bpf_prog_info: { size: 232, id: 4, jited_prog_len: 16, name: 64, verified_insns: 216 },
  __sk_buff: {
    size: 192,
    mark: 8,
    priority: 32,
    ingress_ifindex: 36,
    ifindex: 40,
    cb: 48,
    tstamp: 152,
    wire_len: 160,
    gso_segs: 164,
    gso_size: 176,
  },
  bpf_map_batch_opts: { size: 24, sz: 0, elem_flags: 8, flags: 16 },
} as const;

koffi.proto('int libbpf_print_fn(int level, void *format, void *list)');

type MapNumber = (map: Pointer) => number;
type BatchRead = (
  fd: number,
  from: Uint8Array | null,
  next: Uint8Array,
  keys: Uint8Array,
  values: Uint8Array,
  count: Uint32Array,
  options: null,
) => number;

export const libbpf = {
  set_print: bind<(print: Pointer | null) => Pointer>('void *libbpf_set_print(libbpf_print_fn *print)'),
  version_string: bind<() => string>('const char *libbpf_version_string()'),
  num_possible_cpus: bind<() => number>('int libbpf_num_possible_cpus()'),

  // Each says 1 for yes, 0 for no, or -errno where it cannot tell.
  probe_program_type: bind<(type: number, options: null) => number>(
    'int libbpf_probe_bpf_prog_type(int type, const void *options)',
  ),
  probe_map_type: bind<(type: number, options: null) => number>(
    'int libbpf_probe_bpf_map_type(int type, const void *options)',
  ),
  probe_helper: bind<(type: number, helper: number, options: null) => number>(
    'int libbpf_probe_bpf_helper(int type, int helper, const void *options)',
  ),

  object_open_mem: bind<(bytes: Uint8Array, size: number, options: Record<string, unknown>) => Pointer | null>(
    'void *bpf_object__open_mem(const void *bytes, size_t size, const bpf_object_open_opts *options)',
  ),
  object_load: bind<(object: Pointer) => number>('int bpf_object__load(void *object)'),
  object_close: bind<(object: Pointer) => void>('void bpf_object__close(void *object)'),
  object_btf: bind<(object: Pointer) => Pointer | null>('void *bpf_object__btf(const void *object)'),
  object_next_map: bind<(object: Pointer, map: Pointer | null) => Pointer | null>(
    'void *bpf_object__next_map(const void *object, const void *map)',
  ),
  object_next_program: bind<(object: Pointer, program: Pointer | null) => Pointer | null>(
    'void *bpf_object__next_program(const void *object, void *program)',
  ),

  program_name: bind<(program: Pointer) => string>('const char *bpf_program__name(const void *program)'),
  program_section_name: bind<(program: Pointer) => string>(
    'const char *bpf_program__section_name(const void *program)',
  ),
  program_fd: bind<(program: Pointer) => number>('int bpf_program__fd(const void *program)'),
  program_insn_cnt: bind<(program: Pointer) => number>('size_t bpf_program__insn_cnt(const void *program)'),

  map_name: bind<(map: Pointer) => string>('const char *bpf_map__name(const void *map)'),
  map_type: bind<MapNumber>('int bpf_map__type(const void *map)'),
  map_key_size: bind<MapNumber>('uint32_t bpf_map__key_size(const void *map)'),
  map_value_size: bind<MapNumber>('uint32_t bpf_map__value_size(const void *map)'),
  map_max_entries: bind<MapNumber>('uint32_t bpf_map__max_entries(const void *map)'),
  map_flags: bind<MapNumber>('uint32_t bpf_map__map_flags(const void *map)'),
  map_btf_key: bind<MapNumber>('uint32_t bpf_map__btf_key_type_id(const void *map)'),
  map_btf_value: bind<MapNumber>('uint32_t bpf_map__btf_value_type_id(const void *map)'),
  map_is_internal: bind<(map: Pointer) => boolean>('bool bpf_map__is_internal(const void *map)'),
  map_fd: bind<MapNumber>('int bpf_map__fd(const void *map)'),
  map_set_max_entries: bind<(map: Pointer, entries: number) => number>(
    'int bpf_map__set_max_entries(void *map, uint32_t entries)',
  ),
  map_set_pin_path: bind<(map: Pointer, path: string | null) => number>(
    'int bpf_map__set_pin_path(void *map, const char *path)',
  ),
  map_reuse_fd: bind<(map: Pointer, fd: number) => number>('int bpf_map__reuse_fd(void *map, int fd)'),

  btf_raw_data: bind<(btf: Pointer, size: Uint32Array) => Pointer | null>(
    'const void *btf__raw_data(const void *btf, void *size)',
  ),
  btf_load_by_id: bind<(id: number) => Pointer | null>('void *btf__load_from_kernel_by_id(uint32_t id)'),
  btf_free: bind<(btf: Pointer) => void>('void btf__free(void *btf)'),

  map_get_fd_by_id: bind<(id: number) => number>('int bpf_map_get_fd_by_id(uint32_t id)'),
  prog_get_fd_by_id: bind<(id: number) => number>('int bpf_prog_get_fd_by_id(uint32_t id)'),
  obj_get: bind<(path: string) => number>('int bpf_obj_get(const char *path)'),
  obj_pin: bind<(fd: number, path: string) => number>('int bpf_obj_pin(int fd, const char *path)'),
  obj_info: bind<(fd: number, info: Uint8Array, length: Uint32Array) => number>(
    'int bpf_obj_get_info_by_fd(int fd, void *info, void *length)',
  ),

  lookup: bind<(fd: number, key: Uint8Array, value: Uint8Array) => number>(
    'int bpf_map_lookup_elem(int fd, const void *key, void *value)',
  ),
  update: bind<(fd: number, key: Uint8Array, value: Uint8Array, flags: number) => number>(
    'int bpf_map_update_elem(int fd, const void *key, const void *value, uint64_t flags)',
  ),
  lookup_and_delete: bind<(fd: number, key: Uint8Array, value: Uint8Array) => number>(
    'int bpf_map_lookup_and_delete_elem(int fd, const void *key, void *value)',
  ),
  remove: bind<(fd: number, key: Uint8Array) => number>('int bpf_map_delete_elem(int fd, const void *key)'),
  next_key: bind<(fd: number, key: Uint8Array | null, next: Uint8Array) => number>(
    'int bpf_map_get_next_key(int fd, const void *key, void *next)',
  ),
  lookup_batch: bind<BatchRead>(
    'int bpf_map_lookup_batch(int fd, void *from, void *next, void *keys, void *values, void *count, const void *options)',
  ),
  update_batch: bind<
    (fd: number, keys: Uint8Array, values: Uint8Array, count: Uint32Array, options: BigUint64Array) => number
  >('int bpf_map_update_batch(int fd, const void *keys, const void *values, void *count, const void *options)'),

  test_run: bind<(fd: number, options: TestRunOpts) => number>(
    'int bpf_prog_test_run_opts(int fd, _Inout_ bpf_test_run_opts *options)',
  ),
  tc_hook_create: bind<(hook: TcHook) => number>('int bpf_tc_hook_create(_Inout_ bpf_tc_hook *hook)'),
  tc_hook_destroy: bind<(hook: TcHook) => number>('int bpf_tc_hook_destroy(_Inout_ bpf_tc_hook *hook)'),
  tc_attach: bind<(hook: TcHook, options: TcOpts) => number>(
    'int bpf_tc_attach(const bpf_tc_hook *hook, _Inout_ bpf_tc_opts *options)',
  ),
  tc_detach: bind<(hook: TcHook, options: TcOpts) => number>(
    'int bpf_tc_detach(const bpf_tc_hook *hook, const bpf_tc_opts *options)',
  ),
  prog_attach: bind<(program: number, target: number, type: number, flags: number) => number>(
    'int bpf_prog_attach(int prog_fd, int attachable_fd, int type, unsigned int flags)',
  ),
  link_create: bind<(program: number, target: number, type: number, options: null) => number>(
    'int bpf_link_create(int prog_fd, int target_fd, int attach_type, const void *options)',
  ),
  link_update: bind<(link: number, program: number, options: null) => number>(
    'int bpf_link_update(int link_fd, int new_prog_fd, const void *options)',
  ),
  tc_query: bind<(hook: TcHook, options: TcOpts) => number>(
    'int bpf_tc_query(const bpf_tc_hook *hook, _Inout_ bpf_tc_opts *options)',
  ),
} as const;

/** @returns A function of this process's as libbpf may call it, for `set_print`. It lasts as long as the process. */
export function asLibbpfPrint(print: (level: number, format: Pointer, list: Pointer) => number): Pointer {
  return koffi.register(print, 'libbpf_print_fn *');
}

/** @returns A copy of native memory. */
export function copyBytes(pointer: Pointer, length: number): Uint8Array {
  return Uint8Array.from(new Uint8Array(koffi.view(pointer, length)));
}

/** @returns The address of a byte array's memory, which must be kept alive by the caller. */
export function addressOf(bytes: Uint8Array): Pointer {
  return koffi.address(bytes);
}

/** @returns The name of a map or program: 16 bytes (BPF_OBJ_NAME_LEN) with a final zero. */
export function readName(info: Uint8Array, offset: number): string {
  const name = info.subarray(offset, offset + 16);
  return new TextDecoder().decode(name.subarray(0, name.indexOf(0)));
}
