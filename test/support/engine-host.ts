import { closeSync, openSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { listenUnix } from '../../src/kernel/sockets.ts';
import { parseIp } from '../../src/model/address.ts';
import { Steering } from '../../src/tunnel/engine/ends.ts';
import { type EngineProcessOptions, spawnEngine } from '../../src/tunnel/engine/spawn.ts';

/**
 * A program that stands in for the agent: in the network namespace it is run in it opens a TUN device, a UDP socket and
 * a control socket, starts an engine with them, prints its process id, and ends. The engine stays.
 */
const { values } = parseArgs({
  options: {
    tun: { type: 'string', default: 'myelin0' },
    address: { type: 'string', default: '::' },
    port: { type: 'string', default: '4500' },
    socket: { type: 'string', default: '' },
    binary: { type: 'string' },
    aead: { type: 'string' },
    threads: { type: 'string', default: '1' },
    'hold-timeout-ms': { type: 'string' },
  },
});

const threads = Number(values.threads);
const steering = Steering.load();
const tunFds = steering.openQueues({ name: values.tun, persist: true, queues: threads });
// As much room as agents give their engines.
const udp = { address: parseIp(values.address), port: Number(values.port), bufferBytes: 8 << 20 };
const udpFds = steering.openSockets(udp, threads);
steering.close();
const controlFd = listenUnix(values.socket);
const timeoutMs = values['hold-timeout-ms'];
const aead = (['auto', 'ipsec-mb', 'libcrypto'] as const).find((name) => name === values.aead);
const options: EngineProcessOptions = {
  tunFds,
  udpFds,
  controlFd,
  // Not ours: whoever started us waits for our standard error to close.
  stderr: openSync(`${values.socket}.log`, 'a'),
  ...(values.binary === undefined ? {} : { binary: values.binary }),
  ...(aead === undefined ? {} : { aead }),
  ...(timeoutMs === undefined ? {} : { hold: { timeoutMs: Number(timeoutMs) } }),
};
const engine = await spawnEngine(options);
for (const fd of [...tunFds, ...udpFds, controlFd]) closeSync(fd);
console.log(engine.pid);
