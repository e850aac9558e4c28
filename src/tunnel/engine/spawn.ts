import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { TunnelError } from '../driver.ts';

/** Where `make -C native` puts the engine. */
const engineBinary = fileURLToPath(new URL('../../../build/native/myelin-engine', import.meta.url));

export interface EngineProcessOptions {
  /** Of a TUN device, opened without packet information and with virtio-net headers: a queue for each thread of one direction. */
  readonly tunFds: readonly number[];
  /** Bound UDP sockets', one for each thread: `ends.ts` opens both. */
  readonly udpFds: readonly number[];
  /** A listening Unix socket's, the one that an `EngineDriver` connects to. */
  readonly controlFd: number;
  /** Default `engineBinary`. */
  readonly binary?: string;
  /** Which AES-256-GCM: `auto` by default, the fastest that passes its self-test. */
  readonly aead?: 'auto' | 'ipsec-mb' | 'libcrypto';
  readonly hold?: HoldLimits;
  /** Where its few log lines go. This process's own standard error by default. */
  readonly stderr?: 'inherit' | 'ignore' | 'pipe' | number;
}

/** Bounds on packets that wait for a tunnel. Defaults: 1,024 packets and 256 KiB a pair, 16 MiB in all, 5 s. */
export interface HoldLimits {
  readonly packetsPerPair?: number;
  readonly bytesPerPair?: number;
  readonly bytes?: number;
  readonly timeoutMs?: number;
}

/**
 * Starts the engine as a process of its own that outlives this one. It takes copies of the descriptors: close yours
 * afterwards, or the engine's end will not close the device and the control socket.
 * @returns Once the process runs; whether it then finds all it needs shows in `EngineDriver.open()`, or in its exit.
 * @throws {TunnelError} `DriverDown` where the program is missing or cannot be started.
 */
export async function spawnEngine(options: EngineProcessOptions): Promise<ChildProcess> {
  const binary = options.binary ?? engineBinary;
  if (!existsSync(binary))
    throw new TunnelError('DriverDown', `${binary} is missing: run make -C native`, { data: { binary } });
  const [tunFd, ...moreTuns] = options.tunFds;
  const [udpFd, ...moreUdps] = options.udpFds;
  if (tunFd === undefined || udpFd === undefined || moreTuns.length !== moreUdps.length)
    throw new TypeError('an engine has a queue and a socket for each thread');
  const child = spawn(binary, engineArguments(options), {
    detached: true,
    env: {},
    cwd: '/',
    stdio: ['ignore', 'ignore', options.stderr ?? 'inherit', tunFd, udpFd, options.controlFd, ...moreTuns, ...moreUdps],
  });
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', (cause) =>
      reject(new TunnelError('DriverDown', `cannot start ${binary}: ${cause.message}`, { cause, data: { binary } })),
    );
  });
  child.unref();
  return child;
}

function engineArguments({ aead, tunFds, hold = {} }: EngineProcessOptions): string[] {
  const values = {
    aead,
    threads: tunFds.length === 1 ? undefined : tunFds.length,
    'hold-packets': hold.packetsPerPair,
    'hold-pair-bytes': hold.bytesPerPair,
    'hold-bytes': hold.bytes,
    'hold-timeout-ms': hold.timeoutMs,
  };
  return Object.entries(values).flatMap(([name, value]) => (value === undefined ? [] : [`--${name}=${value}`]));
}
