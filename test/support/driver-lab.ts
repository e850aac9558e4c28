import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { type Endpoint, macOf } from '../../src/endpoint/endpoint.ts';
import { hostLines, pairLines, podLines, podScript } from '../../src/endpoint/wiring.ts';
import { removePinDirectory } from '../../src/kernel/bpffs.ts';
import { run } from '../../src/kernel/command.ts';
import { ipBatch } from '../../src/kernel/ip.ts';
import { createNamespace, deleteNamespace, isNamespace, namespaceId } from '../../src/kernel/netns.ts';
import { compileCache } from '../../src/lab/repository.ts';
import { type IpAddress, parseIp } from '../../src/model/address.ts';
import type { DropReason } from '../../src/model/verdict.ts';
import {
  type DriverStatistics,
  type InboundSa,
  type InstalledSa,
  type Lifetimes,
  type OutboundSa,
  type SaId,
  type TrafficSelector,
  type TunnelDriverEvents,
  TunnelError,
  type UnderlayAddress,
} from '../../src/tunnel/driver.ts';
import type { Call, HostOptions, HostPod, Reply, Request, Results } from './driver-wire.ts';

export type DriverKind = 'engine' | 'xfrm';

const host = fileURLToPath(new URL('driver-host.ts', import.meta.url));

interface Waiting {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** One node: a network namespace, a driver with the datapath around it, and a pod behind it. */
export class DriverNode extends EventEmitter<TunnelDriverEvents> {
  readonly kind: DriverKind;
  readonly netns: string;
  readonly pod: string;
  readonly underlay: IpAddress;
  /** Of the pod. */
  readonly addresses: readonly [v4: IpAddress, v6: IpAddress];
  readonly #options: HostOptions;
  readonly #waiting = new Map<number, Waiting>();
  #child: ChildProcess | undefined;
  #nextId = 1;

  constructor(options: HostOptions, paths: { netns: string; pod: string }) {
    super();
    const [v4, v6] = options.endpoint.addresses;
    if (v4 === undefined || v6 === undefined) throw new TypeError('a pod here has an address of each family');
    this.kind = options.driver;
    this.netns = paths.netns;
    this.pod = paths.pod;
    this.underlay = parseIp(options.underlay);
    this.addresses = [v4, v6];
    this.#options = options;
  }

  /** Starts the process that stands in for the agent; resolves when its driver is usable. */
  async start(): Promise<void> {
    const args = [
      `--net=${this.netns}`,
      '--',
      process.execPath,
      ...process.execArgv,
      host,
      JSON.stringify(this.#options),
    ];
    const child = spawn('nsenter', args, {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      serialization: 'advanced',
      env: { ...compileCache, ...process.env },
    });
    this.#child = child;
    await new Promise<void>((resolve, reject) => {
      child.on('message', (reply: Reply) => {
        if (reply.kind === 'ready') resolve();
        else this.#receive(reply);
      });
      child.once('exit', (code, signal) => {
        const error = new Error(`the driver host of ${this.#options.node} ended with ${code ?? signal}`);
        reject(error);
        for (const { reject: refuse } of this.#waiting.values()) refuse(error);
        this.#waiting.clear();
      });
    });
  }

  /** Ends that process, kindly or not. Its engine and what is in the kernel go on. */
  async stop(signal?: 'SIGKILL'): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    if (signal === undefined) await this.#call({ method: 'close' }).catch(() => undefined);
    else child.kill(signal);
    await gone;
  }

  /** @param proven Whether the datapath admits what comes in by it. @returns Whether the key was zeroed. */
  installInbound(sa: InboundSa, proven = true): Promise<boolean> {
    return this.#call({ method: 'installInbound', sa, proven });
  }

  /** @returns Whether the key was zeroed. */
  installOutbound(sa: OutboundSa): Promise<boolean> {
    return this.#call({ method: 'installOutbound', sa });
  }

  async remove({ direction, spi, peer }: SaId): Promise<void> {
    await this.#call({ method: 'remove', sa: { direction, spi, peer } });
  }

  async movePeer({ direction, spi, peer: from }: SaId, peer: UnderlayAddress): Promise<void> {
    await this.#call({ method: 'movePeer', sa: { direction, spi, peer: from }, peer });
  }

  async keepAlive(peer: UnderlayAddress): Promise<void> {
    await this.#call({ method: 'keepAlive', peer });
  }

  list(): Promise<InstalledSa[]> {
    return this.#call({ method: 'list' });
  }

  statistics(): Promise<DriverStatistics> {
    return this.#call({ method: 'statistics' });
  }

  async fail(pair: TrafficSelector): Promise<void> {
    await this.#call({ method: 'fail', pair });
  }

  /** What the datapath dropped for this reason. */
  async dropped(reason: DropReason): Promise<number> {
    const drops = await this.#call({ method: 'drops' });
    return drops.filter((drop) => drop.reason === reason).reduce((sum, { packets }) => sum + packets, 0);
  }

  #call<R extends Request>(request: R): Promise<Results[R['method']]> {
    const id = this.#nextId++;
    const call: Call = { id, ...request };
    return new Promise((resolve, reject) => {
      // What comes back over IPC is what Results says of the method.
      this.#waiting.set(id, { resolve: (result) => resolve(result as Results[R['method']]), reject });
      this.#child?.send(call, (error) => {
        if (error !== null) reject(error);
      });
    });
  }

  #receive(reply: Exclude<Reply, { kind: 'ready' }>): void {
    if (reply.kind === 'event') {
      EventEmitter.prototype.emit.call(this, reply.event, reply.argument);
      return;
    }
    const waiting = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if (reply.kind === 'result') waiting?.resolve(reply.result);
    else if (reply.code === 'unexpected') waiting?.reject(new Error(reply.message));
    else waiting?.reject(new TunnelError(reply.code, reply.message));
  }
}

/**
 * Two nodes joined by a veth, a pod behind each, dual stack: pod 1 — node 1 ==== node 2 — pod 2; with the real datapath,
 * whose policy admits everything. No association is installed.
 */
export class DriverLab {
  readonly nodes: readonly [DriverNode, DriverNode];
  readonly directory: string;
  readonly #pins: string[] = [];
  readonly #endpoints: Endpoint[] = [];

  private constructor(kinds: readonly [DriverKind, DriverKind]) {
    const name = `myd${process.pid}-${randomBytes(2).toString('hex')}`;
    this.directory = mkdtempSync(`${tmpdir()}/${name}-`);
    const podAddresses = (n: number) => [`10.244.${n}.5`, `fd00:10:244:${n}::5`].map(parseIp);
    const pods: HostPod[] = [1, 2].map((n) => ({
      uid: `shop/pod-${n}`,
      node: `node-${n}`,
      addresses: podAddresses(n),
    }));
    const node = (n: 1 | 2): DriverNode => {
      const paths = { netns: `${this.directory}/node-${n}`, pod: `${this.directory}/pod-${n}` };
      const containerId = `${name}-${n}`;
      const endpoint: Endpoint = {
        containerId,
        ifName: 'eth0',
        network: 'myelin',
        netns: paths.pod,
        addresses: podAddresses(n),
        mac: macOf(containerId, 'pod'),
        hostMac: macOf(containerId, 'host'),
        hostInterface: 'pod0',
        hostIndex: 0,
        mtu: 1404,
        createdAt: 0,
      };
      this.#endpoints.push(endpoint);
      const pinDir = `/sys/fs/bpf/${name}-${n}`;
      this.#pins.push(pinDir);
      const { mac, hostMac, addresses } = endpoint;
      return new DriverNode(
        {
          node: `node-${n}`,
          driver: kinds[n - 1] ?? 'engine',
          runDir: `${this.directory}/run-${n}`,
          pinDir,
          underlay: `192.168.0.${n}`,
          endpoint: { uid: `shop/pod-${n}`, device: 'pod0', mac, hostMac, addresses },
          pods,
        },
        paths,
      );
    };
    this.nodes = [node(1), node(2)];
  }

  static async open(kinds: readonly [DriverKind, DriverKind]): Promise<DriverLab> {
    const lab = new DriverLab(kinds);
    try {
      await lab.#build();
      return lab;
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  async #build(): Promise<void> {
    const [a, b] = this.nodes;
    for (const node of this.nodes) for (const path of [node.netns, node.pod]) await createNamespace(path);
    await ipBatch([`link add eth0 type veth peer name eth0 netns ${b.netns}`], { netns: a.netns });
    for (const [i, node] of this.nodes.entries()) {
      const { netns, pod } = node;
      const endpoint = this.#endpoints[i];
      if (endpoint === undefined) throw new TypeError('every node has an endpoint');
      mkdirSync(`${this.directory}/run-${i + 1}`);
      await ipBatch([`addr add ${node.underlay}/24 dev eth0`, 'link set eth0 up'], { netns });
      await ipBatch(pairLines(endpoint, pod), { netns });
      await run('sh', ['-c', podScript(endpoint), 'sh', 'eth0'], {
        netns: pod,
        input: `${podLines(endpoint).join('\n')}\n`,
      });
      await ipBatch(hostLines(endpoint, [node.underlay]), { netns });
    }
    await Promise.all(this.nodes.map((node) => node.start()));
  }

  /** The selectors of the two pods' associations as `from` sees them. */
  selectors(from: DriverNode): TrafficSelector[] {
    const to = this.#other(from);
    const pair = (family: 0 | 1) => ({ local: from.addresses[family], remote: to.addresses[family] });
    return [pair(0), pair(1)];
  }

  /** Both ends of one direction, with a key of their own. */
  makeSa(from: DriverNode, spi: number, extra: { replayWindow?: number; lifetimes?: Lifetimes; note?: string } = {}) {
    const to = this.#other(from);
    const [key, salt] = [randomBytes(32), randomBytes(4)];
    const { replayWindow, lifetimes = {}, note = '' } = extra;
    const common = () => ({ spi, key: Buffer.from(key), salt: Buffer.from(salt), lifetimes });
    const outbound: OutboundSa = {
      direction: 'out',
      ...common(),
      selectors: this.selectors(from),
      peer: { address: to.underlay, port: 4500 },
      note: `out ${spi} ${note}`,
    };
    const inbound: InboundSa = {
      direction: 'in',
      ...common(),
      selectors: this.selectors(to),
      peer: { address: from.underlay, port: 4500 },
      note: `in ${spi} ${note}`,
      ...(replayWindow === undefined ? {} : { replayWindow }),
    };
    return { from, to, outbound, inbound, key, salt };
  }

  /** Tunnels in both directions, receivers first. @returns Both, that of node 1 first. */
  async connect(firstSpi: number, lifetimes: Lifetimes = {}) {
    const directions = this.nodes.map((node, i) => this.makeSa(node, firstSpi + i, { lifetimes }));
    for (const { to, inbound } of directions) await to.installInbound(inbound);
    for (const { from, outbound } of directions) await from.installOutbound(outbound);
    return directions;
  }

  /** Removes every association of both nodes. */
  async clear(): Promise<void> {
    for (const node of this.nodes) {
      for (const sa of await node.list()) await node.remove(sa);
      for (const pair of this.selectors(node)) await node.fail(pair);
    }
  }

  /** @returns How many of the pings were answered. */
  async ping(
    from: DriverNode,
    to: IpAddress,
    options: { count?: number; intervalS?: number; waitS?: number; size?: number } = {},
  ) {
    const { count = 3, intervalS = 0.05, waitS = 5, size = 56 } = options;
    const args = ['-q', '-c', `${count}`, '-i', `${intervalS}`, '-W', `${waitS}`, '-s', `${size}`, to];
    const { stdout } = await run('ping', args, { netns: from.pod, timeout: 120_000 }).catch(
      (error: { data?: { stdout?: string } }) => ({
        stdout: error.data?.stdout ?? '',
      }),
    );
    return Number(/(\d+) received/.exec(stdout)?.[1] ?? 0);
  }

  async close(): Promise<void> {
    for (const node of this.nodes) await node.stop('SIGKILL');
    for (const { netns } of this.nodes) for (const pid of enginesIn(netns)) process.kill(pid, 'SIGKILL');
    for (const { pod, netns } of this.nodes) for (const path of [pod, netns]) deleteNamespace(path);
    for (const pin of this.#pins) removePinDirectory(pin);
    rmSync(this.directory, { recursive: true, force: true });
  }

  #other(node: DriverNode): DriverNode {
    const [a, b] = this.nodes;
    return node === a ? b : a;
  }
}

/** The engines of a namespace: processes of their own, and only this lab's, as the namespace is. */
function enginesIn(netns: string): number[] {
  if (!isNamespace(netns)) return [];
  const id = namespaceId(netns);
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => {
      try {
        const isEngine = readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith('myelin-engine');
        return isEngine && namespaceId(`/proc/${pid}/ns/net`) === id;
      } catch {
        return false;
      }
    });
}
