import { constants } from 'node:os';
import { MyelinError } from '../model/error.ts';

export type KernelErrorCode =
  /** A system or library call failed; `data.errno` has the name. */
  | 'Errno'
  /** The kernel's verifier refused a program; `data.log` has all that it said. */
  | 'Verifier'
  /** An object file is not what it should be: no BTF, no such map or program. */
  | 'BadObject'
  /** A pinned map has another layout or size than the object; `data.map`, `data.difference`. */
  | 'IncompatiblePin'
  /** A command ended with a status other than 0, or could not be started. */
  | 'Command'
  /** This machine lacks something; the message says what to do. */
  | 'Missing';

/** What a failed operation of kernel/ was doing, and to what. */
export interface KernelErrorData {
  readonly operation: string;
  readonly object: string;
  /** Symbolic, such as `ENOSPC`; absent where no errno was involved. */
  readonly errno?: string;
  readonly [key: string]: unknown;
}

/** Everything that kernel/ throws. `data` says which operation failed on which object, and with which errno. */
export class KernelError extends MyelinError<KernelErrorCode> {
  declare readonly data: KernelErrorData;

  /** Symbolic errno such as `ENOENT`, where there was one. */
  get errno(): string | undefined {
    return this.data.errno;
  }

  constructor(code: KernelErrorCode, message: string, data: KernelErrorData, cause?: unknown) {
    super(code, message, { cause, data: { ...data } });
  }
}

// ENOTSUPP is the kernel's own and has no place in the C library's list.
const names = new Map<number, string>([
  ...Object.entries(constants.errno).map(([name, number]): [number, string] => [number, name]),
  [524, 'ENOTSUPP'],
]);

const explanations: Readonly<Record<string, string>> = {
  EPERM: 'not permitted (root, or CAP_BPF and CAP_NET_ADMIN, is needed)',
  EACCES: 'permission denied',
  ENOENT: 'it does not exist',
  EEXIST: 'it exists already',
  E2BIG: 'it is full, or larger than allowed',
  ENOSPC: 'there is no room left',
  EINVAL: 'invalid argument',
  ENODEV: 'no such device',
  EOPNOTSUPP: 'not supported by this kernel',
  ENOTSUPP: 'not supported by this kernel',
  EADDRINUSE: 'the address is taken by another process',
  EADDRNOTAVAIL: 'the address is not one of this namespace',
  EBUSY: 'it is in use',
};

/** @returns The symbolic name of an errno; libbpf's own numbers (4000 and up) become `LIBBPF_<number>`. */
export function errnoName(errno: number): string {
  return names.get(errno) ?? (errno >= 4000 ? `LIBBPF_${errno}` : `E${errno}`);
}

/**
 * @param errno Positive.
 * @param operation A verb phrase: "look up a key".
 * @param object What it was done to: "map policy".
 */
export function errnoError(errno: number, operation: string, object: string, extra: Record<string, unknown> = {}) {
  const name = errnoName(errno);
  const why = explanations[name];
  return new KernelError('Errno', `cannot ${operation}: ${object}: ${why === undefined ? name : `${why} (${name})`}`, {
    operation,
    object,
    errno: name,
    ...extra,
  });
}
