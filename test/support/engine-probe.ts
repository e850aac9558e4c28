import { spawnSync } from 'node:child_process';
import { closeSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { listenUnix, openUdp } from '../../src/kernel/sockets.ts';
import { openTun } from '../../src/kernel/tun.ts';
import { parseIp } from '../../src/model/address.ts';

/**
 * A program for a network namespace: for each argument it starts the engine's probe build, which locks itself down and
 * then makes the system call of that name, and prints how that ended as JSON: { call: signal or output }.
 */
const binary = fileURLToPath(new URL('../../build/native/myelin-engine-probe', import.meta.url));
const endings: Record<string, string> = {};
for (const call of process.argv.slice(2)) {
  const socket = `/tmp/myelin-probe-${process.pid}.sock`;
  const tun = openTun({ name: 'myelin0' });
  const udp = openUdp({ address: parseIp('127.0.0.1'), port: 0 });
  const controlFd = listenUnix(socket);
  const fds = [...tun.fds, udp.fd, controlFd];
  const { signal, stderr } = spawnSync(binary, {
    stdio: ['ignore', 'ignore', 'pipe', ...fds],
    env: { MYELIN_PROBE: call },
    encoding: 'utf8',
    timeout: 10_000,
  });
  endings[call] = signal ?? stderr.trim().split('\n').at(-1) ?? '';
  for (const fd of fds) closeSync(fd);
  rmSync(socket, { force: true });
}
console.log(JSON.stringify(endings));
