import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { listenUnix, openUdp } from '../../src/kernel/sockets.ts';
import { openTun } from '../../src/kernel/tun.ts';
import { parseIp } from '../../src/model/address.ts';

/**
 * A program for a network namespace: for each argument it starts the engine's probe build, which locks itself down and
 * then makes the system call of that name or number, and prints how that ended as JSON: { call: signal or output }.
 */
const binary = fileURLToPath(new URL('../../build/native/myelin-engine-probe', import.meta.url));
const endings: Record<string, string> = {};

async function probe(call: string, worker: number): Promise<void> {
  const socket = `/tmp/myelin-probe-${process.pid}-${worker}.sock`;
  const tun = openTun({ name: `probe${worker}` });
  const udp = openUdp({ address: parseIp('127.0.0.1'), port: 0 });
  const controlFd = listenUnix(socket);
  const fds = [...tun.fds, udp.fd, controlFd];
  const child = spawn(binary, {
    stdio: ['ignore', 'ignore', 'pipe', ...fds],
    env: { MYELIN_PROBE: call },
    timeout: 10_000,
    killSignal: 'SIGKILL',
  });
  for (const fd of fds) closeSync(fd);
  let output = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  await once(child, 'close');
  endings[call] = child.signalCode ?? output.trim().split('\n').at(-1) ?? '';
  rmSync(socket, { force: true });
}

const calls = process.argv.slice(2);
const workers = [0, 1, 2, 3].map(async (worker) => {
  for (let call = calls.shift(); call !== undefined; call = calls.shift()) await probe(call, worker);
});
await Promise.all(workers);
console.log(JSON.stringify(endings));
