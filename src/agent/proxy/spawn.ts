import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { MyelinError } from '../../model/error.ts';

export class ProxyError extends MyelinError<'ProxyNotStarted'> {}

const program = fileURLToPath(new URL('../../proxy/main.ts', import.meta.url));
/** What it takes to read its modules, wherever they lie, and to become nobody then: no more, and never again. */
const untilLoaded = '-all,+dac_read_search,+setgid,+setuid';
/** No core dumps; of descriptors, two for each connection, as many as may be had. */
const limits = 'ulimit -c 0; ulimit -n 65536 2>/dev/null; exec "$@"';

export interface ProxyProcessOptions {
  /** Path of the network namespace. */
  readonly netns: string;
  /** A listening Unix socket's, where agents connect. */
  readonly controlFd: number;
  /** Listening TCP sockets' of the namespace. */
  readonly listenFds: readonly number[];
}

/**
 * Starts a proxy as a process of its own that outlives this one: in its network namespace, where it becomes a user that owns
 * nothing (src/proxy/privileges.ts), without a capability or a way to get one. It takes copies of the descriptors: close yours afterwards.
 * @returns Once the process runs; whether it then finds what it needs shows on its control socket.
 * @throws {ProxyError} `ProxyNotStarted`
 */
export async function spawnProxy({ netns, controlFd, listenFds }: ProxyProcessOptions): Promise<ChildProcess> {
  const first = 3;
  const args = [
    ...['sh', '-c', limits, 'sh'],
    ...['nsenter', `--net=${netns}`, '--'],
    ...['setpriv', '--inh-caps=-all', '--ambient-caps=-all', `--bounding-set=${untilLoaded}`, '--no-new-privs', '--'],
    ...[process.execPath, '--disable-warning=ExperimentalWarning', '--max-semi-space-size=4', '--v8-pool-size=1'],
    ...[program, '--control-fd', String(first)],
    ...listenFds.flatMap((_, i) => ['--listen-fd', String(first + 1 + i)]),
  ];
  const [file = '', ...rest] = args;
  const child = spawn(file, rest, {
    detached: true,
    env: { UV_THREADPOOL_SIZE: '1', MALLOC_ARENA_MAX: '1' },
    cwd: '/',
    stdio: ['ignore', 'ignore', 'inherit', controlFd, ...listenFds],
  });
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', (cause) =>
      reject(new ProxyError('ProxyNotStarted', `cannot start the proxy: ${cause.message}`, { cause })),
    );
  });
  child.unref();
  return child;
}
