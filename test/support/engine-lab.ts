import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { run } from '../../src/kernel/command.ts';
import { ipBatch } from '../../src/kernel/ip.ts';
import { createNamespace, deleteNamespace } from '../../src/kernel/netns.ts';
import { type Family, type IpAddress, parseIp } from '../../src/model/address.ts';
import type { InboundSa, Lifetimes, OutboundSa, TrafficSelector } from '../../src/tunnel/driver.ts';
import { EngineDriver } from '../../src/tunnel/engine/engine-driver.ts';

/** One node of the smallest tunnel there is: an engine, and one pod behind it. */
export interface EngineNode {
  /** Paths of network namespaces. */
  readonly netns: string;
  readonly pod: string;
  readonly underlay: IpAddress;
  readonly addresses: readonly [v4: IpAddress, v6: IpAddress];
  readonly socket: string;
  driver: EngineDriver;
  enginePid: number;
}

export interface EngineLabOptions {
  /** Of the underlay. Default 1500; the pods get 96 less. */
  readonly mtu?: number;
  readonly binary?: string;
  /** Of the first node's engine; the second's is chosen by itself. */
  readonly aead?: string;
  readonly holdTimeoutMs?: number;
  /** Of either engine, in each direction. Default 1. */
  readonly threads?: number;
  /** Of the underlay. Default 4. */
  readonly underlay?: Family;
}

const host = fileURLToPath(new URL('engine-host.ts', import.meta.url));
/** For drivers in tests: warnings show. */
export const testLog = pino({ level: 'error' }, pino.destination(2));

/**
 * Two network namespaces joined by a veth, an engine in each, and a pod namespace behind each, dual stack:
 * pod 1 — node 1 ==== node 2 — pod 2. No SA is installed.
 */
export class EngineLab {
  readonly nodes: readonly [EngineNode, EngineNode];
  readonly directory: string;
  readonly #options: EngineLabOptions;

  private constructor(name: string, options: EngineLabOptions) {
    this.#options = options;
    this.directory = mkdtempSync(`${tmpdir()}/${name}-`);
    const node = (n: 1 | 2): EngineNode => {
      const socket = `${this.directory}/engine${n}.sock`;
      return {
        netns: `/run/netns/${name}-n${n}`,
        pod: `/run/netns/${name}-p${n}`,
        underlay: parseIp(options.underlay === 6 ? `fd00:254::${n}` : `172.31.254.${n}`),
        addresses: [parseIp(`10.251.${n}.2`), parseIp(`fd00:251:${n}::2`)],
        socket,
        driver: new EngineDriver({ socketPath: socket }, { log: testLog }),
        enginePid: 0,
      };
    };
    this.nodes = [node(1), node(2)];
  }

  static async open(options: EngineLabOptions = {}): Promise<EngineLab> {
    const lab = new EngineLab(`mye${process.pid % 10_000}${randomBytes(2).toString('hex')}`, options);
    try {
      await lab.#build();
      return lab;
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  async #build(): Promise<void> {
    const mtu = this.#options.mtu ?? 1500;
    const ip6Underlay = this.#options.underlay === 6;
    const [a, b] = this.nodes;
    for (const node of this.nodes) for (const path of [node.netns, node.pod]) await createNamespace(path);
    const name = (path: string) => path.replace('/run/netns/', '');
    await ipBatch([
      `link add eth0 mtu ${mtu} netns ${name(a.netns)} type veth peer name eth0 mtu ${mtu} netns ${name(b.netns)}`,
    ]);
    for (const [i, node] of this.nodes.entries()) {
      const n = i + 1;
      await run(
        'sysctl',
        ['-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1', 'net.ipv6.conf.default.accept_dad=0'],
        { netns: node.netns },
      );
      await ipBatch(
        [
          `link add pod0 mtu ${mtu - 96} type veth peer name eth0 mtu ${mtu - 96} netns ${name(node.pod)}`,
          ip6Underlay ? `addr add ${node.underlay}/64 dev eth0 nodad` : `addr add ${node.underlay}/24 dev eth0`,
          'link set eth0 up',
          `addr add 10.251.${n}.1/24 dev pod0`,
          `addr add fd00:251:${n}::1/64 dev pod0 nodad`,
          'link set pod0 up',
        ],
        { netns: node.netns },
      );
      await ipBatch(
        [
          `addr add ${node.addresses[0]}/24 dev eth0`,
          `addr add ${node.addresses[1]}/64 dev eth0 nodad`,
          'link set eth0 up',
          `route add default via 10.251.${n}.1`,
          `route add default via fd00:251:${n}::1`,
        ],
        { netns: node.pod },
      );
      await this.startEngine(node);
      await ipBatch(
        [
          // As agents have it: a machine that is busy with something else loses nothing for want of room here.
          'link set myelin0 addrgenmode none txqueuelen 4096',
          `link set myelin0 mtu ${mtu - 96} up`,
          `route add 10.251.${3 - n}.0/24 dev myelin0`,
          `route add fd00:251:${3 - n}::/64 dev myelin0`,
        ],
        { netns: node.netns },
      );
    }
  }

  /** Starts a node's engine through a process that stands in for the agent and has ended when this returns. */
  async startEngine(node: EngineNode): Promise<void> {
    const { binary, aead, holdTimeoutMs, threads = 1 } = this.#options;
    const args = [
      host,
      `--socket=${node.socket}`,
      `--threads=${threads}`,
      ...(binary === undefined ? [] : [`--binary=${binary}`]),
      ...(aead === undefined || node !== this.nodes[0] ? [] : [`--aead=${aead}`]),
      ...(holdTimeoutMs === undefined ? [] : [`--hold-timeout-ms=${holdTimeoutMs}`]),
    ];
    const { stdout } = await run(process.execPath, args, { netns: node.netns });
    node.enginePid = Number(stdout.trim());
    if (node.driver.engine === undefined) await node.driver.open();
  }

  /** A driver that takes over from the node's present one, as that of a restarted agent does. */
  async reconnect(node: EngineNode): Promise<void> {
    await node.driver.close();
    node.driver = new EngineDriver({ socketPath: node.socket }, { log: testLog });
    await node.driver.open();
  }

  /** The selectors of the two pods' SAs as `from` sees them. */
  selectors(from: EngineNode): TrafficSelector[] {
    const to = from === this.nodes[0] ? this.nodes[1] : this.nodes[0];
    return [0, 1].map((family): TrafficSelector => {
      const [local, remote] = [from.addresses[family], to.addresses[family]];
      if (local === undefined || remote === undefined) throw new Error('nodes have an address of each family');
      return { local, remote };
    });
  }

  /** Both ends of one direction, with a key of their own. */
  makeSa(
    from: EngineNode,
    spi: number,
    extra: Partial<Pick<InboundSa, 'replayWindow'> & { lifetimes: Lifetimes }> = {},
  ) {
    const to = from === this.nodes[0] ? this.nodes[1] : this.nodes[0];
    const key = randomBytes(32);
    const salt = randomBytes(4);
    const { replayWindow, lifetimes = {} } = extra;
    const outbound: OutboundSa = {
      direction: 'out',
      spi,
      selectors: this.selectors(from),
      peer: { address: to.underlay, port: 4500 },
      key: Buffer.from(key),
      salt: Buffer.from(salt),
      lifetimes,
      note: `out ${spi}`,
    };
    const inbound: InboundSa = {
      direction: 'in',
      spi,
      selectors: this.selectors(to),
      peer: { address: from.underlay, port: 4500 },
      key: Buffer.from(key),
      salt: Buffer.from(salt),
      lifetimes,
      note: `in ${spi}`,
      ...(replayWindow === undefined ? {} : { replayWindow }),
    };
    return { from, to, outbound, inbound, key, salt };
  }

  /** Tunnels in both directions, receivers first. */
  async connect(firstSpi = 0x1000): Promise<void> {
    const directions = this.nodes.map((node, i) => this.makeSa(node, firstSpi + i));
    for (const { to, inbound } of directions) await to.driver.installInbound(inbound);
    for (const { from, outbound } of directions) await from.driver.installOutbound(outbound);
  }

  async close(): Promise<void> {
    for (const node of this.nodes) {
      await node.driver.close();
      if (node.enginePid > 0 && (await isEngine(node.enginePid))) process.kill(node.enginePid, 'SIGKILL');
      for (const path of [node.pod, node.netns]) deleteNamespace(path);
    }
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Whether the process is there and an engine: its id may have gone to another since. */
export async function isEngine(pid: number): Promise<boolean> {
  const { readFile } = await import('node:fs/promises');
  const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '');
  return name.startsWith('myelin-engine');
}
