import koffi, { type KoffiFunc } from 'koffi';
import { errnoError } from '../error.ts';

/**
 * The C library's functions that Node has no API for. Every prototype stands here once.
 * Byte arrays are passed as `void *`: koffi hands the callee their own memory, so results are written in place.
 */
const libc = koffi.load('libc.so.6');

function bind<F extends (...args: never[]) => unknown>(prototype: string): KoffiFunc<F> {
  return libc.func(prototype) as unknown as KoffiFunc<F>;
}

export const raw = {
  // ioctl is variadic in C; on every ABI that Node runs on with Linux (x86-64, AArch64) a pointer travels the same way.
  ioctl: bind<(fd: number, request: number, argument: Uint8Array) => number>(
    'int ioctl(int fd, unsigned long request, void *argument)',
  ),
  ioctlNumber: bind<(fd: number, request: number, argument: number) => number>(
    'int ioctl(int fd, unsigned long request, unsigned long argument)',
  ),
  socket: bind<(family: number, type: number, protocol: number) => number>(
    'int socket(int family, int type, int protocol)',
  ),
  bind: bind<(fd: number, address: Uint8Array, length: number) => number>(
    'int bind(int fd, const void *address, unsigned int length)',
  ),
  dup: bind<(fd: number) => number>('int dup(int fd)'),
  setns: bind<(fd: number, type: number) => number>('int setns(int fd, int type)'),
  listen: bind<(fd: number, backlog: number) => number>('int listen(int fd, int backlog)'),
  send: bind<(fd: number, bytes: Uint8Array, length: number, flags: number) => number>(
    'intptr_t send(int fd, const void *bytes, size_t length, int flags)',
  ),
  sendmsg: bind<(fd: number, message: Uint8Array, flags: number) => number>(
    'intptr_t sendmsg(int fd, const void *message, int flags)',
  ),
  recv: bind<(fd: number, bytes: Uint8Array, length: number, flags: number) => number>(
    'intptr_t recv(int fd, void *bytes, size_t length, int flags)',
  ),
  getsockname: bind<(fd: number, address: Uint8Array, length: Uint8Array) => number>(
    'int getsockname(int fd, void *address, void *length)',
  ),
  setsockopt: bind<(fd: number, level: number, name: number, value: Uint8Array, length: number) => number>(
    'int setsockopt(int fd, int level, int name, const void *value, unsigned int length)',
  ),
  getsockopt: bind<(fd: number, level: number, name: number, value: Uint8Array, length: Uint8Array) => number>(
    'int getsockopt(int fd, int level, int name, void *value, void *length)',
  ),
  mmap: bind<(address: null, length: number, protection: number, flags: number, fd: number, offset: number) => bigint>(
    'void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)',
  ),
  munmap: bind<(address: bigint, length: number) => number>('int munmap(void *address, size_t length)'),
  mount: bind<(source: string | null, target: string, type: string | null, flags: number, data: null) => number>(
    'int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data)',
  ),
  umount2: bind<(target: string, flags: number) => number>('int umount2(const char *target, int flags)'),
  if_nametoindex: bind<(name: string) => number>('unsigned int if_nametoindex(const char *name)'),
  prctl: bind<(option: number, a: number, b: number, c: number, d: number) => number>(
    'int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)',
  ),
  syscall: bind<(number: number, a: number, b: number, c: number) => number>(
    'long syscall(long number, long a, long b, long c)',
  ),
  malloc_trim: bind<(pad: number) => number>('int malloc_trim(size_t pad)'),
  /** The list is consumed by the call. On both ABIs a `va_list` argument arrives as a pointer. */
  vsnprintf: bind<(buffer: Uint8Array, size: number, format: bigint, list: bigint) => number>(
    'int vsnprintf(void *buffer, size_t size, void *format, void *list)',
  ),
};

/** @returns The address of a byte array's memory, which must be kept alive by the caller. */
export function memoryOf(bytes: Uint8Array): bigint {
  return koffi.address(bytes);
}

/** @returns errno of the call just made: read it before anything else runs. */
export function lastErrno(): number {
  return koffi.errno();
}

/**
 * Passes a C result through.
 * @throws {KernelError} `Errno` where it is negative. Must be called on the call's own line: errno does not wait.
 */
export function checked(result: number, operation: string, object: string): number {
  if (result < 0) throw errnoError(koffi.errno(), operation, object);
  return result;
}

/**
 * @returns The index of a device of this process's network namespace.
 * @throws {KernelError} `Errno` (ENODEV)
 */
export function deviceIndex(name: string): number {
  const index = raw.if_nametoindex(name);
  if (index === 0) throw errnoError(koffi.errno(), 'find the device', name);
  return index;
}
