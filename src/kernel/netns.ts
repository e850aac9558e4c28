import { closeSync, existsSync, mkdirSync, openSync, readdirSync, rmSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { run } from './command.ts';
import { errnoError, errnoName } from './error.ts';
import { checked, lastErrno, raw } from './ffi/libc.ts';

const MNT_DETACH = 2;
const CLONE_NEWNET = 0x40000000;
const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 0o2000002;
const SOL_SOCKET = 1;
const SO_NETNS_COOKIE = 71;

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

/**
 * Does something in another network namespace: this thread enters it, and leaves it again before anything else of it runs.
 * Sockets that are opened there stay there; paths below /proc/sys/net are that namespace's.
 * @param path Of the namespace's file.
 * @param action Synchronous.
 * @throws {KernelError} `Errno` (ENOENT; EINVAL where it is no network namespace), and what `action` throws
 */
export function inNamespace<T>(path: string, action: () => T): T {
  const open = (name: string) => {
    try {
      return openSync(name, 'r');
    } catch {
      throw errnoError(2, 'open the network namespace', path);
    }
  };
  const own = open('/proc/thread-self/ns/net');
  try {
    const other = open(path);
    try {
      checked(raw.setns(other, CLONE_NEWNET), 'enter the network namespace', path);
      try {
        return action();
      } finally {
        checked(raw.setns(own, CLONE_NEWNET), 'leave the network namespace', path);
      }
    } finally {
      closeSync(other);
    }
  } finally {
    closeSync(own);
  }
}

/**
 * The number that BPF programs know a namespace by, never given twice while the machine runs.
 * @param path Of the namespace's file.
 * @throws {KernelError} `Errno` (ENOENT; EINVAL where it is no network namespace)
 */
export function namespaceCookie(path: string): bigint {
  return inNamespace(path, () => readCookie(path));
}

function readCookie(path: string): bigint {
  const fd = checked(raw.socket(AF_INET, SOCK_DGRAM_CLOEXEC, 0), 'open a socket', path);
  try {
    const value = new Uint8Array(8);
    const result = raw.getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, value, Uint8Array.of(8, 0, 0, 0));
    checked(result, 'read the cookie of the network namespace', path);
    return new DataView(value.buffer).getBigUint64(0, true);
  } finally {
    closeSync(fd);
  }
}
