import { spawn } from 'node:child_process';
import { errnoName, KernelError } from './error.ts';

export interface RunOptions {
  /** Written to the command's standard input. */
  readonly input?: string;
  /** Path of a network namespace (a bind mount, or /proc/<pid>/ns/net) to run in. */
  readonly netns?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Ends the command with SIGTERM. */
  readonly signal?: AbortSignal;
  /** Milliseconds until the command is killed; 30 000 by default. */
  readonly timeout?: number;
}

export interface RunResult {
  readonly stdout: string;
  readonly stderr: string;
}

/** Where the programs come from that Myelin calls, to be named when one is missing. */
const packages: Readonly<Record<string, string>> = {
  ip: 'iproute2',
  tc: 'iproute2',
  bridge: 'iproute2',
  nft: 'nftables',
  ethtool: 'ethtool',
  nsenter: 'util-linux',
  unshare: 'util-linux',
};

// What the kernel's answer looks like in the words of the C library, as ip, tc and nft print it.
const answers: readonly (readonly [RegExp, string])[] = [
  [/File exists/, 'EEXIST'],
  [/No such device|Cannot find device|does not exist/, 'ENODEV'],
  [/No such process/, 'ESRCH'],
  [/No such file or directory/, 'ENOENT'],
  [/Operation not permitted/, 'EPERM'],
  [/Operation not supported/, 'EOPNOTSUPP'],
  [/Network is unreachable/, 'ENETUNREACH'],
  [/Address already in use/, 'EADDRINUSE'],
  [/Cannot assign requested address/, 'EADDRNOTAVAIL'],
  [/Device or resource busy/, 'EBUSY'],
];

/**
 * Runs a program to its end.
 * @returns What it printed.
 * @throws {KernelError} `Missing` where there is no such program; `Command` where it fails, with `status`, `stderr` and,
 *   where the words give it away, `errno`
 */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const [file, list] =
    options.netns === undefined ? [command, args] : ['nsenter', [`--net=${options.netns}`, '--', command, ...args]];
  const { stdout, stderr, status, signal } = await execute(file, list, options, [command, ...args].join(' '));
  if (status === 0) return { stdout, stderr };
  const line = [command, ...args].join(' ');
  const why = stderr.trim().split('\n').slice(0, 3).join('; ') || stdout.trim().split('\n').at(-1) || '';
  const ending = signal === null ? `status ${status}` : `signal ${signal}`;
  const errno = answers.find(([pattern]) => pattern.test(stderr))?.[1];
  throw new KernelError('Command', `${line}: ${why === '' ? ending : why}`, {
    operation: 'run',
    object: line,
    status,
    stderr,
    stdout,
    ...(options.netns === undefined ? {} : { netns: options.netns }),
    ...(errno === undefined ? {} : { errno }),
  });
}

interface Ended extends RunResult {
  readonly status: number | null;
  readonly signal: string | null;
}

function execute(file: string, args: readonly string[], options: RunOptions, line: string): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, {
      stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      timeout: options.timeout ?? 30_000,
      ...(options.env === undefined ? {} : { env: { ...process.env, ...options.env } }),
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
    const output = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const)
      child[name]?.setEncoding('utf8').on('data', (text: string) => {
        output[name] += text;
      });
    // A command that ends without reading its input closes the pipe; its status says what happened.
    child.stdin?.on('error', () => {}).end(options.input);
    child.once('error', (cause: NodeJS.ErrnoException) => reject(startFailure(file, line, cause)));
    child.once('close', (status, signal) => resolve({ ...output, status, signal }));
  });
}

function startFailure(file: string, line: string, cause: NodeJS.ErrnoException): Error {
  if (cause.name === 'AbortError') return cause;
  const errno = cause.code ?? errnoName(0);
  if (errno !== 'ENOENT')
    return new KernelError('Command', `cannot run ${line}: ${errno}`, { operation: 'run', object: line, errno }, cause);
  return new KernelError('Missing', notInstalled(file), { operation: 'run', object: line, errno }, cause);
}

/** @returns What to tell somebody who lacks a program, with the Debian package that has it. */
export function notInstalled(program: string): string {
  const from = packages[program];
  return `the program ${program} is not installed${from === undefined ? '' : `: install the package ${from}`}`;
}
