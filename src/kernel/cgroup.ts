import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { KernelError } from './error.ts';

/**
 * @param mountInfo Text of /proc/self/mountinfo.
 * @returns Where cgroup v2 is mounted, also where it stands beside v1 (/sys/fs/cgroup/unified).
 */
export function cgroupMountOf(mountInfo: string): string | undefined {
  for (const line of mountInfo.split('\n')) {
    // proc(5): fields 5 = mount point, then optional fields up to " - ", then the type.
    const [left = '', right = ''] = line.split(' - ');
    const point = left.split(' ')[4];
    if (right.startsWith('cgroup2 ') && point !== undefined) return decodeOctal(point);
  }
  return undefined;
}

/** @throws {KernelError} `Missing` */
export function cgroupRoot(): string {
  const root = cgroupMountOf(readFileSync('/proc/self/mountinfo', 'utf8'));
  if (root !== undefined) return root;
  throw new KernelError(
    'Missing',
    'cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified (make the directory first)',
    { operation: 'find the cgroup v2 mount', object: '/proc/self/mountinfo' },
  );
}

/** Makes a group and those above it. @param path Absolute, below `cgroupRoot()`. */
export function createCgroup(path: string): void {
  mkdirSync(path, { recursive: true });
}

/** Moves a process, with all its threads, into a group. Its children of later follow. */
export function addToCgroup(path: string, pid: number): void {
  writeFileSync(`${path}/cgroup.procs`, String(pid));
}

/** @returns The processes in a group and in those below it; none where it does not exist. */
export function cgroupProcesses(path: string): number[] {
  if (!existsSync(path)) return [];
  const own = readFileSync(`${path}/cgroup.procs`, 'utf8').split('\n').filter(Boolean).map(Number);
  return [...own, ...children(path).flatMap(cgroupProcesses)];
}

/**
 * Kills every process in a group and below, and removes the groups. No fork escapes it.
 * @returns Whether it was there.
 * @throws {KernelError} `Errno` (EBUSY) where a process does not die within `timeout` milliseconds
 */
export async function removeCgroup(path: string, timeout = 5000): Promise<boolean> {
  if (!existsSync(path)) return false;
  kill(path);
  for (let waited = 0; isPopulated(path); waited += 5) {
    if (waited >= timeout)
      throw new KernelError('Errno', `cannot remove the cgroup ${path}: processes in it do not die`, {
        operation: 'remove the cgroup',
        object: path,
        errno: 'EBUSY',
        processes: cgroupProcesses(path),
      });
    await sleep(5);
  }
  removeTree(path);
  return true;
}

/** A process on its way out is in no list any more, and the group cannot be removed yet: the kernel's own word counts. */
function isPopulated(path: string): boolean {
  return /^populated 1$/m.test(readFileSync(`${path}/cgroup.events`, 'utf8'));
}

function kill(path: string): void {
  if (existsSync(`${path}/cgroup.kill`)) {
    writeFileSync(`${path}/cgroup.kill`, '1');
    return;
  }
  for (const pid of cgroupProcesses(path)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It ended by itself in between.
    }
  }
}

function removeTree(path: string): void {
  for (const child of children(path)) removeTree(child);
  rmdirSync(path);
}

function children(path: string): string[] {
  return readdirSync(path, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => `${path}/${entry.name}`);
}

/** mountinfo writes space, tab, newline and backslash as octal. */
function decodeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
