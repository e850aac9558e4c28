/**
 * A program that is a node's tunnels and nothing else: in the network namespace that it is run in it connects to the
 * engine, starts a TunnelManager as the given node, and does what it is told, a line of JSON each on standard input,
 * answered by a line each.
 */
import { createPrivateKey } from 'node:crypto';
import { createInterface } from 'node:readline';
import { pino } from 'pino';
import { BundleStore, bundleFromPem } from '../../src/identity/bundle.ts';
import { parseCertificates } from '../../src/identity/certificate.ts';
import type { Svid } from '../../src/identity/svid.ts';
import type { TrafficSelector } from '../../src/tunnel/driver.ts';
import { EngineDriver } from '../../src/tunnel/engine/engine-driver.ts';
import { TunnelManager } from '../../src/tunnel/manager.ts';
import type { LocalPod, PeerNode, RemotePod } from '../../src/tunnel/peers.ts';

export interface HostPem {
  readonly chain: string;
  readonly privateKey: string;
}

export interface HostConfig {
  readonly trustDomain: string;
  readonly roots: string;
  readonly socket: string;
  readonly node: HostPem;
  readonly nodes: readonly PeerNode[];
  readonly pods: readonly (LocalPod & { readonly pem: HostPem })[];
  readonly peers: readonly RemotePod[];
  readonly lifetimeSeconds: number;
  readonly graceMs: number;
}

function config(): HostConfig {
  return JSON.parse(process.argv[2] ?? '');
}

const { trustDomain, roots, socket, node, nodes, pods, peers, lifetimeSeconds, graceMs } = config();
const logger = pino({ level: process.env.TEST_LOG ?? 'silent' }, pino.destination(2));
const driver = new EngineDriver({ socketPath: socket }, { log: logger });
const svids = new Map<string, Svid>();
for (const { pem, pod, spiffeId, addresses } of pods) {
  const chain = parseCertificates(pem.chain);
  const notAfter = Math.min(...chain.map((certificate) => certificate.notAfter));
  const privateKey = createPrivateKey(pem.privateKey);
  svids.set(pod.uid, { spiffeId, podUid: pod.uid, addresses, chain, privateKey, notBefore: 0, notAfter });
}
const identity = { chain: parseCertificates(node.chain), privateKey: createPrivateKey(node.privateKey) };
const proofs = new Map<string, string>();
const durations: number[] = [];
const manager = new TunnelManager(
  { trustDomain, lifetimeSeconds, timing: { graceMs } },
  {
    driver,
    svid: (uid) => svids.get(uid),
    nodeIdentity: () => identity,
    bundles: new BundleStore(bundleFromPem(trustDomain, roots)),
    resolver: {
      podAt: (address) => peers.find(({ addresses }) => addresses.includes(address)),
      nodeAt: (address) => nodes.find((other) => other.address === address),
    },
    hooks: {
      onProof: ({ local, remote, remoteUid }) => void proofs.set(`${local} ${remote}`, remoteUid),
      onForget: ({ local, remote }: TrafficSelector) => void proofs.delete(`${local} ${remote}`),
    },
    logger,
  },
);
manager.on('handshake', ({ outcome, durationMs }) => {
  if (outcome === 'done') durations.push(durationMs);
});
await driver.open();
await manager.start(pods);

const commands: Record<string, () => unknown> = {
  list: () => manager.list(),
  statistics: () => ({ ...manager.statistics(), durations }),
  driver: () => driver.statistics(),
  proofs: () => Object.fromEntries(proofs),
  /** As if the newest key had carried most of what it may. */
  soft: async () => {
    const sas = await driver.list();
    const sa = sas.filter(({ direction }) => direction === 'out').at(-1);
    if (sa !== undefined) driver.emit('soft', { sa, cause: 'bytes' });
  },
  forgetFirst: () => manager.removeLocal(pods[0]?.pod.uid ?? ''),
};

console.log(JSON.stringify({ ready: manager.port }));
for await (const line of createInterface({ input: process.stdin })) {
  const answer = await commands[line.trim()]?.();
  console.log(JSON.stringify(answer ?? null));
}
await manager.close();
await driver.close();
