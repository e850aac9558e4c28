import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import type { TestContext } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { pino } from 'pino';
import { BundleStore } from '../../src/identity/bundle.ts';
import { type CaOptions, CertificateAuthority } from '../../src/identity/ca.ts';
import { podSpiffeId } from '../../src/identity/names.ts';
import type { Svid } from '../../src/identity/svid.ts';
import { type IpAddress, parseIp } from '../../src/model/address.ts';
import type { TrafficSelector } from '../../src/tunnel/driver.ts';
import type { TlsIdentity } from '../../src/tunnel/handshake/credentials.ts';
import { TunnelManager } from '../../src/tunnel/manager.ts';
import type { TunnelManagerDeps, TunnelManagerOptions } from '../../src/tunnel/manager-options.ts';
import type { LocalPod, PeerNode, PeerResolver, RemotePod } from '../../src/tunnel/peers.ts';
import type { TunnelProof } from '../../src/tunnel/sa-ledger.ts';
import { issueSvid, podIdentity, trustDomain } from '../identity/fixtures.ts';
import { MemoryDriver, Underlay } from './memory-driver.ts';

export const logger = pino({ level: process.env.TEST_LOG ?? 'silent' });

/** What a node believes of the others. Every node has its own, so that one can be stale. */
export class View implements PeerResolver {
  readonly pods = new Map<IpAddress, RemotePod>();
  readonly nodes = new Map<IpAddress, PeerNode>();

  podAt(address: IpAddress): RemotePod | undefined {
    return this.pods.get(address);
  }

  nodeAt(address: IpAddress): PeerNode | undefined {
    return this.nodes.get(address);
  }

  learn(pod: RemotePod): void {
    for (const address of pod.addresses) this.pods.set(address, pod);
  }

  forget(pod: RemotePod): void {
    for (const address of pod.addresses) if (this.pods.get(address) === pod) this.pods.delete(address);
  }
}

export type ManagerOver = Partial<TunnelManagerOptions> &
  Pick<Partial<TunnelManagerDeps>, 'whyNot' | 'now' | 'random' | 'radius' | 'hooks'>;

/** A node with a real manager, real TLS on loopback and real certificates; only the driver is in memory. */
export class TestNode {
  readonly name: string;
  readonly address: IpAddress;
  readonly view = new View();
  readonly svids = new Map<string, Svid>();
  readonly locals: LocalPod[] = [];
  /** What the hooks were told: the datapath's table of proven tunnels. */
  readonly proofs = new Map<string, TunnelProof>();
  readonly history: string[] = [];
  readonly bundles: BundleStore;
  readonly driver: MemoryDriver;
  readonly #over: ManagerOver;
  manager: TunnelManager;
  identity: TlsIdentity;

  constructor(
    name: string,
    address: IpAddress,
    ca: CertificateAuthority,
    underlay: Underlay,
    identity: TlsIdentity,
    over: ManagerOver,
  ) {
    this.name = name;
    this.address = address;
    this.bundles = new BundleStore(ca.bundle);
    this.driver = new MemoryDriver({ address, port: 4500 }, underlay);
    this.identity = identity;
    this.#over = over;
    this.manager = this.#newManager();
  }

  /** Another agent takes this one's place; the driver stays. */
  async restart(whileAway: () => void = () => {}): Promise<void> {
    await this.manager.close();
    whileAway();
    this.driver.removeAllListeners();
    this.manager = this.#newManager();
    await this.manager.start(this.locals);
  }

  get peer(): PeerNode {
    return { name: this.name, address: this.address, handshakePort: this.manager.port };
  }

  #newManager(): TunnelManager {
    const { whyNot, now, random, radius, hooks, ...options } = this.#over;
    return new TunnelManager(
      {
        trustDomain,
        host: this.address,
        handshakePort: 0,
        limits: { strangers: 512, strangersPerSecond: 1e6 },
        ...options,
      },
      {
        driver: this.driver,
        svid: (uid) => this.svids.get(uid),
        nodeIdentity: () => this.identity,
        bundles: this.bundles,
        resolver: this.view,
        logger,
        hooks: hooks ?? {
          onProof: (proof) => {
            this.history.push(`proof ${proof.spi} ${proof.remoteUid}`);
            this.proofs.set(`${proof.local} ${proof.remote}`, proof);
          },
          onForget: ({ local, remote }, spi) => {
            this.history.push(`forget ${spi}`);
            this.proofs.delete(`${local} ${remote}`);
          },
        },
        ...(whyNot === undefined ? {} : { whyNot }),
        ...(radius === undefined ? {} : { radius }),
        ...(now === undefined ? {} : { now }),
        ...(random === undefined ? {} : { random }),
      },
    );
  }
}

let nextHost = 0;

/** Nodes that believe the same of one another, until a test makes them differ. */
export class TestCluster {
  readonly ca: CertificateAuthority;
  readonly underlay = new Underlay();
  readonly nodes: TestNode[] = [];

  private constructor(t: Pick<TestContext, 'after'>, ca: CertificateAuthority) {
    this.ca = ca;
    t.after(async () => {
      for (const node of this.nodes) await node.manager.close();
    });
  }

  static async make(t: Pick<TestContext, 'after'>, options: Partial<CaOptions> = {}): Promise<TestCluster> {
    return new TestCluster(t, await CertificateAuthority.open({ trustDomain, ...options }));
  }

  async node(over: ManagerOver = {}): Promise<TestNode> {
    const number = ++nextHost;
    const credentials = await this.ca.issueNode(`node-${number}`);
    const identity = { chain: [credentials.certificate], privateKey: createPrivateKey(credentials.privateKey) };
    const address = parseIp(`127.${process.pid % 250}.${1 + Math.floor(number / 250)}.${1 + (number % 250)}`);
    const node = new TestNode(`node-${number}`, address, this.ca, this.underlay, identity, over);
    await node.manager.start();
    this.nodes.push(node);
    for (const other of this.nodes)
      for (const another of this.nodes) other.view.nodes.set(another.address, another.peer);
    return node;
  }

  /** A pod with its certificate, known to every node. */
  async pod(
    node: TestNode,
    name: string,
    over: Parameters<typeof podIdentity>[1] & { lifetimeMs?: number } = {},
  ): Promise<RemotePod> {
    const identity = podIdentity(name, over);
    const svid = await issueSvid(this.ca, identity, over.lifetimeMs);
    const pod: RemotePod = {
      pod: identity.pod,
      spiffeId: svid.spiffeId,
      addresses: identity.addresses,
      node: node.peer,
    };
    node.svids.set(identity.pod.uid, svid);
    node.locals.push(pod);
    for (const other of this.nodes) other.view.learn(pod);
    await node.manager.addLocal(pod);
    return pod;
  }
}

export async function remove(node: TestNode, pod: RemotePod): Promise<void> {
  node.locals.splice(node.locals.indexOf(pod), 1);
  node.svids.delete(pod.pod.uid);
  await node.manager.removeLocal(pod.pod.uid);
}

/** The address pair of one family, seen from `from`. */
export function between(from: RemotePod, to: RemotePod, family: 4 | 6 = 4): TrafficSelector {
  const pick = (pod: RemotePod) => pod.addresses.find((address) => address.includes(':') === (family === 6));
  const [local, remote] = [pick(from), pick(to)];
  assert.ok(local !== undefined && remote !== undefined);
  return { local, remote };
}

/** Waits for something that is bound to come, looking often. */
export async function until(what: string, condition: () => boolean | Promise<boolean>, ms = 10_000): Promise<void> {
  const deadline = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > deadline) assert.fail(`never came: ${what}`);
    await wait(2);
  }
}

export function spiffe(name: string): string {
  return podSpiffeId({ trustDomain, namespace: 'shop', serviceAccount: name });
}

/** Addresses of a pod that nobody else in the test has. */
export function addressesOf(number: number): IpAddress[] {
  return [parseIp(`10.244.${number >> 8}.${number & 255}`), parseIp(`fd00:10:244::${number.toString(16)}`)];
}
