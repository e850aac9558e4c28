import { mkdirSync, rmSync, statfsSync } from 'node:fs';
import { errnoError } from './error.ts';
import { lastErrno, raw } from './ffi/libc.ts';

const BPF_FS_MAGIC = 0xcafe4a11;
export const bpffsRoot = '/sys/fs/bpf';

/** Whether a path is on a BPF file system. */
export function isBpffs(path: string): boolean {
  return statfsSync(path).type === BPF_FS_MAGIC;
}

/**
 * Makes a directory for pins, mounting the BPF file system at its usual place where nobody has done so.
 * @param directory Below `root`.
 * @throws {KernelError} `Errno` (EPERM; EINVAL where the directory is not on a BPF file system)
 */
export function ensurePinDirectory(directory: string, root = bpffsRoot): void {
  mkdirSync(root, { recursive: true });
  if (!isBpffs(root) && raw.mount('bpf', root, 'bpf', 0, null) < 0)
    throw errnoError(lastErrno(), 'mount the BPF file system', root);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  if (!isBpffs(directory)) throw errnoError(22, 'pin BPF objects outside a BPF file system', directory);
}

/** Removes a directory with its pins: maps end with the last program or process that uses them. */
export function removePinDirectory(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
}
