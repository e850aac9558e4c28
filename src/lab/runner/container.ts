import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createCgroup, removeCgroup } from '../../kernel/cgroup.ts';
import { confined, isRunning, readStartTime } from '../process.ts';
import type { Privileges } from './privileges.ts';
import { privilegeArguments } from './privileges.ts';

/** A directory or file of the machine in a container's file system. */
export interface Mount {
  readonly source: string;
  readonly target: string;
  readonly readOnly: boolean;
}

/** One start of one container. */
export interface ContainerSpec {
  readonly name: string;
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly workingDir: string;
  /** Path of the pod's network namespace. */
  readonly netns: string;
  /** Made if it is not there, removed with the container. */
  readonly cgroup: string;
  /** For the container's own files; made if it is not there. */
  readonly directory: string;
  readonly log: string;
  readonly mounts: readonly Mount[];
  /** Path in the container → text: laid over the machine's own. Must have /etc/hostname. */
  readonly files: Readonly<Record<string, string>>;
  readonly privileges: Privileges;
}

/** What somebody who enters a container later must know of it; kept in `container.json` of its directory. */
export interface ContainerRecord {
  /** Process 1 of the container, as the machine numbers it. */
  readonly pid: number;
  /** In clock ticks since the machine's boot, as /proc says it: with the number, what tells it from all others. */
  readonly startTime: string;
  /** The same by the clock, in ISO 8601. */
  readonly startedAt: string;
  readonly env: Readonly<Record<string, string>>;
  readonly workingDir: string;
  readonly cgroup: string;
  readonly privileges: Privileges;
}

export interface Ending {
  /** 128 + the signal's number where a signal ended it. */
  readonly exitCode: number;
  readonly finishedAt: Date;
}

const init = join(import.meta.dirname, 'container-init.sh');
const namespaces = ['--mount', '--pid', '--uts', '--ipc', '--cgroup', '--fork', '--kill-child'];
const startTimeoutMs = 10_000;
const adoptedPollMs = 200;

/** What a container's life is seen by: a child of this process, or a process that an earlier one started. */
interface Observed {
  pid?: number;
  readonly isAlive: () => boolean;
  readonly end: Promise<Ending>;
}

/** A process in network, mount, pid, uts, ipc and cgroup namespaces of its own. */
export class RunningContainer {
  readonly startedAt: Date;
  /** Resolves once, when the process has ended and nothing of it is left. */
  readonly ended: Promise<Ending>;
  readonly #cgroup: string;
  readonly #process: Observed;

  private constructor(cgroup: string, startedAt: Date, process: Observed) {
    this.startedAt = startedAt;
    this.#cgroup = cgroup;
    this.#process = process;
    this.ended = process.end.then(async (ending) => {
      await removeCgroup(cgroup).catch(() => false);
      return ending;
    });
  }

  /** Starts the process. @returns When its file system and network are what the spec says. */
  static async start(spec: ContainerSpec): Promise<RunningContainer> {
    const child = spawnContainer(spec);
    const end = new Promise<Ending>((resolve) => {
      const ended = (exitCode: number) => resolve({ exitCode, finishedAt: new Date() });
      child.once('exit', (code, signal) => ended(code ?? 128 + (signal === 'SIGKILL' ? 9 : 15)));
      child.once('error', () => ended(127));
    });
    const isAlive = () => child.exitCode === null && child.signalCode === null;
    const process: Observed = { isAlive, end };
    const startedAt = new Date();
    const container = new RunningContainer(spec.cgroup, startedAt, process);
    const record = await becomeReady(spec, startedAt, isAlive);
    if (record !== undefined) process.pid = record.pid;
    return container;
  }

  /**
   * Takes on what somebody else started in this directory, who is gone.
   * @returns Undefined where nothing was begun; what was only half begun is ended. With `ending`, it has ended since.
   */
  static async adopt(
    directory: string,
    cgroup: string,
  ): Promise<{ readonly container: RunningContainer; readonly ending?: Ending } | undefined> {
    const pidFile = join(directory, 'pid');
    const record = readRecord(directory);
    if (record === undefined || readPidFile(pidFile).pid !== record.pid) {
      await removeCgroup(cgroup).catch(() => false);
      return undefined;
    }
    const isAlive = () => isRunning(record);
    const ending = (): Ending => {
      const { exitCode, writtenAt } = readPidFile(pidFile);
      return exitCode === undefined ? { exitCode: 137, finishedAt: new Date() } : { exitCode, finishedAt: writtenAt };
    };
    const startedAt = new Date(record.startedAt);
    if (!isAlive()) {
      const now = ending();
      const process = { isAlive, end: Promise.resolve(now) };
      return { container: new RunningContainer(cgroup, startedAt, process), ending: now };
    }
    const watch = async () => {
      while (isAlive()) await sleep(adoptedPollMs);
      return ending();
    };
    return { container: new RunningContainer(cgroup, startedAt, { pid: record.pid, isAlive, end: watch() }) };
  }

  /** Asks it to end, and kills it after `graceMs`. */
  async stop(graceMs: number): Promise<Ending> {
    const { pid, isAlive } = this.#process;
    if (pid !== undefined && isAlive()) {
      try {
        process.kill(pid, 'SIGTERM');
      } catch {
        // It ended by itself in between.
      }
    }
    const timer = setTimeout(() => void removeCgroup(this.#cgroup).catch(() => false), graceMs);
    const ending = await this.ended;
    clearTimeout(timer);
    return ending;
  }
}

function spawnContainer(spec: ContainerSpec): ChildProcess {
  const { directory } = spec;
  const [stage, layer, pidFile] = [join(directory, 'stage'), join(directory, 'layer'), join(directory, 'pid')];
  rmSync(pidFile, { force: true });
  mkdirSync(stage, { recursive: true });
  for (const [path, text] of Object.entries(spec.files)) {
    mkdirSync(dirname(join(layer, path)), { recursive: true });
    writeFileSync(join(layer, path), text, { mode: text.startsWith('#!') ? 0o755 : 0o644 });
  }
  createCgroup(spec.cgroup);
  const mounts = spec.mounts.flatMap((mount) => [mount.readOnly ? 'ro' : 'rw', mount.source, mount.target]);
  const inside = ['env', '-i', '-C', spec.workingDir, ...environment(spec.env), ...privilegeArguments(spec.privileges)];
  const command = ['unshare', ...namespaces, '--', init, stage, layer, pidFile, ...mounts, '--', ...inside];
  const [file = '', ...args] = confined([...command, ...spec.command], spec);
  const log = openSync(spec.log, 'a', 0o640);
  try {
    return spawn(file, args, { detached: true, stdio: ['ignore', log, log] });
  } finally {
    closeSync(log);
  }
}

/** Waits for process 1 to say its number, and keeps it for those who want to enter. @returns Undefined where it ended before. */
async function becomeReady(
  spec: ContainerSpec,
  startedAt: Date,
  isAlive: () => boolean,
): Promise<ContainerRecord | undefined> {
  const { directory, env, workingDir, cgroup, privileges } = spec;
  for (let waited = 0; waited < startTimeoutMs && isAlive(); waited += 5) {
    const { pid = 0 } = readPidFile(join(directory, 'pid'));
    const startTime = pid > 0 ? readStartTime(pid) : undefined;
    if (startTime !== undefined) {
      const times = { startTime, startedAt: startedAt.toISOString() };
      const record: ContainerRecord = { pid, ...times, env, workingDir, cgroup, privileges };
      writeFileSync(join(directory, 'container.json'), JSON.stringify(record), { mode: 0o600 });
      return record;
    }
    await sleep(5);
  }
  return undefined;
}

/** What container-init.sh has written so far. */
function readPidFile(file: string): { readonly pid?: number; readonly exitCode?: number; readonly writtenAt: Date } {
  if (!existsSync(file)) return { writtenAt: new Date() };
  const [pid, exitCode] = readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map(Number);
  return {
    ...(pid === undefined ? {} : { pid }),
    ...(exitCode === undefined ? {} : { exitCode }),
    writtenAt: statSync(file).mtime,
  };
}

function readRecord(directory: string): ContainerRecord | undefined {
  const file = join(directory, 'container.json');
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined;
}

/** @returns The record of the container that a directory belongs to, or undefined where none is running. */
export function recordOf(directory: string): ContainerRecord | undefined {
  const record = readRecord(directory);
  return record !== undefined && isRunning(record) ? record : undefined;
}

/**
 * The command line that runs a command inside a container that runs, as its own user, with its own environment.
 * @param options.privileged Keeps root's every privilege: for what no manifest may ask, such as forging a packet.
 */
export function enterCommand(
  record: ContainerRecord,
  command: readonly string[],
  options: { privileged?: boolean } = {},
): string[] {
  const privileges = options.privileged === true ? [] : privilegeArguments(record.privileges);
  const env = { ...record.env, ...(process.env.TERM === undefined ? {} : { TERM: process.env.TERM }) };
  const enter = 'echo 0 > "$1/cgroup.procs" && shift && exec "$@"';
  const target = ['nsenter', '--target', String(record.pid), '--mount', '--net', '--pid', '--uts', '--ipc', '--cgroup'];
  const inside = ['env', '-i', '-C', record.workingDir, ...environment(env), ...privileges, ...command];
  return ['sh', '-c', enter, 'sh', record.cgroup, ...target, '--', ...inside];
}

function environment(env: Readonly<Record<string, string>>): string[] {
  return Object.entries(env).map(([name, value]) => `${name}=${value}`);
}
