import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createCgroup, removeCgroup } from '../../kernel/cgroup.ts';
import { confined, readStartTime } from '../process.ts';
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
  readonly startTime: string;
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

/** A process in network, mount, pid, uts, ipc and cgroup namespaces of its own. */
export class RunningContainer {
  readonly startedAt = new Date();
  /** Resolves once, when the process has ended and nothing of it is left. */
  readonly ended: Promise<Ending>;
  readonly spec: ContainerSpec;
  readonly #child: ChildProcess;
  #pid: number | undefined;

  private constructor(spec: ContainerSpec) {
    this.spec = spec;
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
    const inside = [
      'env',
      '-i',
      '-C',
      spec.workingDir,
      ...environment(spec.env),
      ...privilegeArguments(spec.privileges),
    ];
    const command = ['unshare', ...namespaces, '--', init, stage, layer, pidFile, ...mounts, '--', ...inside];
    const [file = '', ...args] = confined([...command, ...spec.command], spec);
    const log = openSync(spec.log, 'a', 0o640);
    this.#child = spawn(file, args, { detached: true, stdio: ['ignore', log, log] });
    closeSync(log);
    this.ended = new Promise((resolve) => {
      const end = (exitCode: number) => {
        void removeCgroup(spec.cgroup)
          .catch(() => false)
          .then(() => resolve({ exitCode, finishedAt: new Date() }));
      };
      this.#child.once('exit', (code, signal) => end(code ?? 128 + (signal === 'SIGKILL' ? 9 : 15)));
      this.#child.once('error', () => end(127));
    });
  }

  /** Starts the process. @returns When its file system and network are what the spec says. */
  static async start(spec: ContainerSpec): Promise<RunningContainer> {
    const container = new RunningContainer(spec);
    await container.#becomeReady();
    return container;
  }

  /** Asks it to end, and kills it after `graceMs`. */
  async stop(graceMs: number): Promise<Ending> {
    if (this.#pid !== undefined && this.#child.exitCode === null && this.#child.signalCode === null) {
      try {
        process.kill(this.#pid, 'SIGTERM');
      } catch {
        // It ended by itself in between.
      }
    }
    const timer = setTimeout(() => void removeCgroup(this.spec.cgroup).catch(() => false), graceMs);
    const ending = await this.ended;
    clearTimeout(timer);
    return ending;
  }

  /** Waits for process 1 to say its number, and keeps it for those who want to enter. */
  async #becomeReady(): Promise<void> {
    const { directory, env, workingDir, cgroup, privileges } = this.spec;
    const file = join(directory, 'pid');
    for (let waited = 0; waited < startTimeoutMs; waited += 5) {
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
      const pid = existsSync(file) ? Number(readFileSync(file, 'utf8')) : 0;
      const startTime = pid > 0 ? readStartTime(pid) : undefined;
      if (startTime !== undefined) {
        this.#pid = pid;
        const record: ContainerRecord = { pid, startTime, env, workingDir, cgroup, privileges };
        writeFileSync(join(directory, 'container.json'), JSON.stringify(record), { mode: 0o600 });
        return;
      }
      await sleep(5);
    }
  }
}

/** @returns The record of the container that a directory belongs to, or undefined where none is running. */
export function recordOf(directory: string): ContainerRecord | undefined {
  const file = join(directory, 'container.json');
  if (!existsSync(file)) return undefined;
  const record: ContainerRecord = JSON.parse(readFileSync(file, 'utf8'));
  return readStartTime(record.pid) === record.startTime ? record : undefined;
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
