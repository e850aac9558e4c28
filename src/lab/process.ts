import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { LabError, type LabErrorCode } from './error.ts';
import type { ProcessRecord } from './state.ts';

export interface LaunchOptions {
  readonly name: string;
  readonly command: readonly string[];
  /** Path of the network namespace to run in. */
  readonly netns: string;
  /** Directory of the cgroup to run in, made already; whatever the process starts stays in it. */
  readonly cgroup: string;
  /** File that takes standard output and error; appended to. */
  readonly log: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** Moves itself into the cgroup before there is anything to leave outside of it, then becomes the command. */
const enterCgroup = 'echo 0 > "$1/cgroup.procs" && shift && exec "$@"';

/** @returns The command line that runs `command` in a cgroup and a network namespace, as the process that is started. */
export function confined(command: readonly string[], { cgroup, netns }: { cgroup: string; netns: string }): string[] {
  return ['sh', '-c', enterCgroup, 'sh', cgroup, 'nsenter', `--net=${netns}`, '--', ...command];
}

/** How those processes ended that ended before the one that started them. */
const endings = new WeakMap<ProcessRecord, string>();

/** Starts a process that outlives this one. It has no standard input and a session of its own, so Ctrl-C does not reach it. */
export function launch(options: LaunchOptions): ProcessRecord {
  const [file = '', ...args] = confined(options.command, options);
  const log = openSync(options.log, 'a', 0o640);
  try {
    const child = spawn(file, args, {
      detached: true,
      stdio: ['ignore', log, log],
      env: { ...process.env, ...options.env },
    });
    child.unref();
    child.on('error', () => {});
    const { pid } = child;
    const startTime = pid === undefined ? undefined : readStartTime(pid);
    if (pid === undefined || startTime === undefined)
      throw new LabError('ProcessFailed', `${options.name} could not be started; see ${options.log}`);
    const record: ProcessRecord = { name: options.name, pid, startTime, log: options.log };
    child.on('exit', (code, signal) => endings.set(record, signal === null ? `exit code ${code}` : signal));
    return record;
  } finally {
    closeSync(log);
  }
}

/** @returns When the process started, in the kernel's ticks; undefined where there is none (a zombie is none). */
export function readStartTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field is the name in parentheses and may hold anything: count from its end.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

/** Whether the very process that was recorded is running, and not one that got its number. */
export function isRunning({ pid, startTime }: Pick<ProcessRecord, 'pid' | 'startTime'>): boolean {
  return readStartTime(pid) === startTime;
}

/** Sends a signal to the process if it is still that process. @returns Whether it was. */
function signalProcess(record: Pick<ProcessRecord, 'pid' | 'startTime'>, signal: NodeJS.Signals): boolean {
  if (!isRunning(record)) return false;
  try {
    process.kill(record.pid, signal);
    return true;
  } catch {
    return false;
  }
}

/** Asks a process to end, and makes it end after `graceMs`. */
export async function stopProcess(record: Pick<ProcessRecord, 'pid' | 'startTime'>, graceMs = 3000): Promise<void> {
  if (graceMs > 0) signalProcess(record, 'SIGTERM');
  for (const end = Date.now() + graceMs; isRunning(record) && Date.now() < end; ) await sleep(10);
  signalProcess(record, 'SIGKILL');
  while (isRunning(record)) await sleep(5);
}

export interface WaitOptions {
  readonly what: string;
  readonly timeoutMs: number;
  /** Of the error; default `Timeout`. */
  readonly code?: LabErrorCode;
  readonly signal?: AbortSignal;
  readonly everyMs?: number;
  /** Processes without which there is nothing to wait for. */
  readonly processes?: readonly ProcessRecord[];
}

/**
 * Asks again and again until the answer is yes.
 * @param ready Its last `string` answer says in the error what is missing.
 * @throws {LabError} `Timeout`, or the code that was asked for; `ProcessFailed` as soon as one of the processes has ended
 */
export async function waitUntil(ready: () => Promise<boolean | string>, options: WaitOptions): Promise<void> {
  const { what, timeoutMs, code = 'Timeout', signal, everyMs = 50, processes = [] } = options;
  let missing = '';
  for (const end = Date.now() + timeoutMs; Date.now() < end; await sleep(everyMs, undefined, { signal })) {
    signal?.throwIfAborted();
    const dead = processes.find((process) => !isRunning(process));
    if (dead !== undefined) throw processFailure(dead);
    const answer = await ready();
    if (answer === true) return;
    if (typeof answer === 'string') missing = `: ${answer}`;
  }
  throw new LabError(code, `${what} within ${timeoutMs / 1000} s${missing}`);
}

/** The error for a process that has ended, with what it said last. */
function processFailure(record: ProcessRecord): LabError {
  const { name, log } = record;
  const ending = endings.get(record);
  const how = ending === undefined ? '' : ` with ${ending}`;
  const last = existsSync(log) ? readFileSync(log, 'utf8').trimEnd().split('\n').slice(-5).join('\n  ') : '';
  return new LabError('ProcessFailed', `${name} has ended${how}; the end of ${log}:\n  ${last}`, { data: { log } });
}
