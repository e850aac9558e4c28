import { spawnSync } from 'node:child_process';

const inside = 'MYELIN_TEST_NAMESPACE';

/**
 * Has a whole test file run in a network namespace of its own: to be called before anything else. libbpf, TUN and sockets
 * act in the namespace of their process, and a process changes it only before it has threads. The namespace ends with
 * the process, whatever becomes of the test.
 */
export function runInOwnNamespace(): void {
  if (process.env[inside] !== undefined) return;
  const [, file = ''] = process.argv;
  const { status, error } = spawnSync('unshare', ['--net', process.execPath, ...process.execArgv, file], {
    stdio: 'inherit',
    env: { ...process.env, [inside]: '1' },
  });
  if (error !== undefined) throw error;
  process.exit(status ?? 1);
}
