/**
 * A node's tunnels in a process of their own, with a driver in memory: what a storm of new pairs costs is seen without
 * whoever asks for it. Configured by the first line of standard input (JSON), told what to do by the others.
 */
import { createPrivateKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { createInterface } from 'node:readline';
import { pino } from 'pino';
import { BundleStore, bundleFromPem } from '../../src/identity/bundle.ts';
import { parseCertificates } from '../../src/identity/certificate.ts';
import type { Svid } from '../../src/identity/svid.ts';
import type { IpAddress } from '../../src/model/address.ts';
import type { TlsWorkOptions } from '../../src/tunnel/handshake/work.ts';
import { TunnelManager } from '../../src/tunnel/manager.ts';
import type { LocalPod, PeerNode, RemotePod } from '../../src/tunnel/peers.ts';
import { MemoryDriver, Underlay } from '../../test/tunnel/memory-driver.ts';

interface Pem {
  readonly chain: string;
  readonly privateKey: string;
}

export interface StormNodeConfig {
  readonly trustDomain: string;
  readonly roots: string;
  readonly address: IpAddress;
  readonly node: Pem;
  readonly pods: readonly (LocalPod & { readonly pem: Pem })[];
  readonly radius: 'pod' | 'node';
  readonly threads: Pick<TlsWorkOptions, 'most' | 'idleMs' | 'mostHere'>;
}

export interface StormReport {
  readonly opened: number;
  readonly answered: number;
  readonly up: number;
  readonly threadsBegun: number;
  readonly refused: Record<string, number>;
  readonly rssMiB: number;
  /** Processor time of all threads since `reset`. */
  readonly cpuMs: number;
  /** Of the event loop's delay since `reset`, milliseconds, beyond the timer that measures it. */
  readonly delay: { readonly mean: number; readonly p99: number; readonly max: number };
  /** Times that a task which comes round every 10 ms was late by more than 50 ms, and how often it came. */
  readonly late: number;
  readonly ticks: number;
}

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const config: StormNodeConfig = JSON.parse((await lines.next()).value ?? '');
const driver = new MemoryDriver({ address: config.address, port: 4500 }, new Underlay());
const svids = new Map<string, Svid>();
for (const { pem, pod, spiffeId, addresses } of config.pods) {
  const chain = parseCertificates(pem.chain);
  const notAfter = Math.min(...chain.map((certificate) => certificate.notAfter));
  const privateKey = createPrivateKey(pem.privateKey);
  svids.set(pod.uid, { spiffeId, podUid: pod.uid, addresses, chain, privateKey, notBefore: 0, notAfter });
}
const identity = {
  chain: parseCertificates(config.node.chain),
  privateKey: createPrivateKey(config.node.privateKey),
};
const peers = new Map<IpAddress, RemotePod>();
const nodes: PeerNode[] = [];
const manager = new TunnelManager(
  {
    trustDomain: config.trustDomain,
    host: config.address,
    handshakePort: 0,
    threads: config.threads,
    // All of loopback comes from one address, which is no node's.
    limits: { strangers: 512, strangersPerSecond: 1e6 },
  },
  {
    driver,
    svid: (uid) => svids.get(uid),
    nodeIdentity: () => identity,
    bundles: new BundleStore(bundleFromPem(config.trustDomain, config.roots)),
    resolver: {
      podAt: (address) => peers.get(address),
      nodeAt: (address) => nodes.find((node) => node.address === address),
    },
    radius: () => config.radius,
    hooks: { onProof: () => {}, onForget: () => {} },
    logger: pino({ level: 'error' }, pino.destination(2)),
  },
);
const delays = monitorEventLoopDelay({ resolution: 5 });
let cpu = process.cpuUsage();
let last = performance.now();
let late = 0;
let ticks = 0;
setInterval(() => {
  const now = performance.now();
  ticks++;
  if (now - last > 60) late++;
  last = now;
}, 10);

const commands: Record<string, (argument: string) => unknown> = {
  /** Who the others are. */
  meet: (argument) => {
    const others: RemotePod[] = JSON.parse(argument);
    for (const other of others) for (const address of other.addresses) peers.set(address, other);
    nodes.push(...others.slice(0, 1).map(({ node }) => node));
    return null;
  },
  /** All of its pods send to all of the others', as many pairs as asked for, at once. */
  storm: (argument) => {
    const remotes = [...new Set(peers.values())];
    let left = Number(argument);
    for (const {
      addresses: [local],
    } of config.pods)
      for (const {
        addresses: [remote],
      } of remotes)
        if (left-- > 0 && local !== undefined && remote !== undefined) driver.send({ local, remote });
    return null;
  },
  reset: () => {
    delays.enable();
    delays.reset();
    cpu = process.cpuUsage();
    late = 0;
    ticks = 0;
    return null;
  },
  progress: () => manager.statistics(),
  report: async (): Promise<StormReport> => {
    const { user, system } = process.cpuUsage(cpu);
    const { opened, answered, threadsBegun, refused } = manager.statistics();
    const ms = (ns: number) => Math.max(0, ns / 1e6 - 5);
    return {
      opened,
      answered,
      up: (await manager.list()).filter(({ state }) => state === 'up').length,
      threadsBegun,
      refused: { ...refused },
      rssMiB: Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) / 1024,
      cpuMs: (user + system) / 1000,
      delay: { mean: ms(delays.mean), p99: ms(delays.percentile(99)), max: ms(delays.max) },
      late,
      ticks,
    };
  },
};

await manager.start(config.pods);
console.log(JSON.stringify({ port: manager.port }));
for (let next = await lines.next(); next.done !== true; next = await lines.next()) {
  const line: string = next.value;
  const [command = '', ...rest] = line.split(' ');
  console.log(JSON.stringify((await commands[command]?.(rest.join(' '))) ?? null));
}
process.exit(0);
