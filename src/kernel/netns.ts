import { closeSync, existsSync, mkdirSync, openSync, readdirSync, rmSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { run } from './command.ts';
import { errnoError, errnoName } from './error.ts';
import { lastErrno, raw } from './ffi/libc.ts';

const MNT_DETACH = 2;

/**
 * Makes a network namespace that lives as long as its path: a bind mount on a file, as `ip netns` does, in a directory
 * of the caller's choice. Its loopback device is up. Where the path is a namespace already, nothing happens.
 * @throws {KernelError} `Command`, `Errno`
 */
export async function createNamespace(path: string): Promise<void> {
  if (isNamespace(path)) return;
  mkdirSync(dirname(path), { recursive: true });
  closeSync(openSync(path, 'w', 0o600));
  try {
    await run('unshare', [`--net=${path}`, 'ip', 'link', 'set', 'lo', 'up']);
  } catch (error) {
    deleteNamespace(path);
    throw error;
  }
}

/**
 * Takes the path away. The namespace itself ends with the last process and socket in it.
 * @returns Whether there was anything at the path.
 */
export function deleteNamespace(path: string): boolean {
  if (!existsSync(path)) return false;
  if (raw.umount2(path, MNT_DETACH) < 0) {
    const errno = lastErrno();
    // EINVAL: not a mount point, the file of a creation that was cut short.
    if (errnoName(errno) !== 'EINVAL') throw errnoError(errno, 'unmount the network namespace', path);
  }
  rmSync(path, { force: true });
  return true;
}

// A file of nsfs: its device differs from that of every real file system, and is the one of our own namespace.
export function isNamespace(path: string): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat !== undefined && stat.dev === statSync('/proc/self/ns/net').dev;
}

/** @returns A number that is equal for two paths exactly where they name the same namespace. */
export function namespaceId(path: string): number {
  return statSync(path).ino;
}

/** @returns The paths of the namespaces in a directory, sorted. */
export function listNamespaces(directory: string): string[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory)
    .map((name) => `${directory}/${name}`)
    .filter(isNamespace)
    .sort();
}
