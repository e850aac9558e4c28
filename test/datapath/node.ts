import { join } from 'node:path';
import * as layouts from '../../src/datapath/layouts.ts';
import { type DatapathMaps, loadObjects, type ProgramName } from '../../src/datapath/objects.ts';
import { placeValue, prefixKeyOf } from '../../src/datapath/places.ts';
import type { BpfMap } from '../../src/kernel/bpf/map.ts';
import { BpfObject, type LoadedObject } from '../../src/kernel/bpf/object.ts';
import type { BpfProgram, SkBuff } from '../../src/kernel/bpf/program.ts';
import { RingBuffer } from '../../src/kernel/bpf/ringbuf.ts';
import { attachTc } from '../../src/kernel/bpf/tc.ts';
import type { IpAddress } from '../../src/model/address.ts';
import { reservedIdentity } from '../../src/model/identity.ts';
import type { Prefix } from '../../src/model/prefix.ts';
import { type DropReason, dropReasonFromCode } from '../../src/model/verdict.ts';
import { anyProtocolProbe, verdictCodes } from '../../src/policy/image.ts';
import { frame, type IpOptions, ip, type Transport, tcp } from '../support/packet.ts';
import { type ReadFrame, readFrame } from '../support/packet-reader.ts';
import type { Pod } from './cluster.ts';
import * as cluster from './cluster.ts';

export const objectDir = process.env.MYELIN_BPF_DIR ?? join(import.meta.dirname, '../../build/bpf');

const actions: Readonly<Record<number, Outcome['action']>> = { 0: 'pass', 2: 'drop', 7: 'redirect' };
/** The one device that every network namespace has: test runs need one that exists. */
const loopback = 1;

/** A test's few entries: the large maps take time to make. */
const small = {
  ct: 4096,
  service_flows: 4096,
  fragments: 1024,
  denials: 1024,
  policy: 16384,
  peers: 16384,
  backends: 4096,
};

export interface Outcome {
  readonly action: 'pass' | 'drop' | 'redirect';
  /** Of a drop. */
  readonly reason?: DropReason;
  readonly mark: number;
  /** The packet as the program left it. */
  readonly bytes: Uint8Array;
  readonly frame: ReadFrame;
  readonly events: readonly layouts.EventRecord[];
}

/** What one entry of a rule set says; see bpf/lib/maps.h. */
export interface Entry {
  readonly identity?: number;
  readonly protocol?: number;
  readonly port?: number;
  readonly portLength?: number;
  readonly precedence?: number;
  readonly verdict?: keyof typeof verdictCodes;
  readonly flags?: number;
  readonly rule?: number;
}

/** The programs of one node with maps of their own, filled with the small cluster; runs packets one by one. */
export class TestNode {
  readonly maps: DatapathMaps;
  readonly #objects: ReturnType<typeof loadObjects>;
  readonly #extra: LoadedObject[] = [];
  readonly #programs: Record<ProgramName, BpfProgram>;
  #framed: LoadedObject | undefined;
  readonly #ring: RingBuffer;
  readonly #records: layouts.EventRecord[] = [];
  #endpoints = new Map<number, layouts.Endpoint>();

  /** @param options.fullConnections Whether from_pod's connection table is one that can be full, and holds one. */
  constructor(options: { maxEntries?: Readonly<Record<string, number>>; fullConnections?: boolean } = {}) {
    const { fullConnections = false, maxEntries = small } = options;
    this.#objects = loadObjects({ objectDir, maxEntries });
    this.maps = this.#objects.maps;
    this.#programs = {
      ...this.#objects.programs,
      ...(fullConnections ? { from_pod: this.#loadWith('from_pod.full', ['ct']).program('from_pod') } : {}),
    };
    this.#ring = new RingBuffer(this.maps.events, (bytes) => this.#records.push(layouts.event.decode(bytes)));
    this.configure({});
    this.addPlaces();
    for (const pod of [cluster.alice, cluster.bob, cluster.carol]) this.addPod(pod);
    this.ruleSet(cluster.sets.open, []);
    this.ruleSet(cluster.sets.isolated, [], { isolated: true });
    this.ruleSet(cluster.sets.web, [{ protocol: 6, port: 80, portLength: 16, rule: cluster.rules.web }], {
      isolated: true,
    });
  }

  configure(change: Partial<layouts.Config>): void {
    const none: layouts.Config = {
      revision: 1,
      tunnelIfindex: cluster.tunnelIfindex,
      uplinkIfindex: cluster.uplinkIfindex,
      flags: 0,
      mtu: 1404,
      proxyIfindex: 0,
      reportIntervalNs: 0n,
      denyIntervalNs: 0n,
      openingNs: 0n,
      tcpEstablishedNs: 0n,
      tcpHalfClosedNs: 0n,
      closedNs: 0n,
      udpNs: 0n,
      sctpNs: 0n,
      icmpNs: 0n,
      fragmentNs: 0n,
      nameFloorNs: 0n,
      nameCeilingNs: 0n,
    };
    this.maps.config.set(0, { ...none, ...change });
  }

  addPlaces(): void {
    const { identity, node, otherNode, remote, alice, bob, carol } = cluster;
    const peer = (addresses: { address4: IpAddress; address6: IpAddress }, number: number, kind: 1 | 2 | 3 | 4) => {
      for (const address of [addresses.address4, addresses.address6])
        this.maps.peers.set(address, { identity: identity(number), kind });
    };
    for (const pod of [alice, bob, carol]) peer(pod, pod.identity, 1);
    peer(remote, remote.identity, 2);
    peer(node, reservedIdentity.host, 3);
    peer(otherNode, reservedIdentity.remoteNode, 4);
    for (const prefix of cluster.podCidrs) this.addPrefix(prefix, 'unknown-pod');
    for (const prefix of cluster.serviceCidrs) this.addPrefix(prefix, 'unknown-service');
  }

  addPrefix(prefix: Prefix, kind: 'unknown-pod' | 'unknown-service' | 'world', number = 0): void {
    this.maps.prefixes.set(prefixKeyOf(prefix), placeValue({ identity: cluster.identity(number), kind }));
  }

  /** Makes a pod known to `send` and `receive` only: nobody reaches it. */
  addEndpoint(pod: Pod, change: Partial<layouts.Endpoint>): void {
    this.#endpoints.set(pod.id, { ...this.#defaults(pod), ...change });
  }

  /** Puts a pod on its link, open in both directions unless told otherwise. */
  addPod(pod: Pod, change: Partial<layouts.Endpoint> = {}): void {
    const endpoint = { ...this.#defaults(pod), ...change };
    this.addEndpoint(pod, endpoint);
    this.maps.endpoints.set(pod.ifindex, endpoint);
    for (const address of [pod.address4, pod.address6]) this.maps.local.set(address, pod.ifindex);
  }

  #defaults(pod: Pod): layouts.Endpoint {
    return {
      id: pod.id,
      identity4: pod.identity,
      identity6: pod.identity,
      ingressAdminSet: 0,
      ingressSet: cluster.sets.open,
      ingressMeshSet: 0,
      egressAdminSet: 0,
      egressSet: cluster.sets.open,
      egressMeshSet: 0,
      flags: layouts.endpointFlags.ready,
      names: 0,
      mac: pod.mac,
      hostMac: pod.hostMac,
      addr4: pod.address4,
      addr6: pod.address6,
    };
  }

  ruleSet(set: number, entries: readonly Entry[], options: { isolated?: boolean } = {}): void {
    let probes = 0;
    for (const entry of entries) {
      const { identity = 0, protocol = 0, port = 0, portLength = 0 } = entry;
      probes |= protocol === 0 ? anyProtocolProbe : 1 << portLength;
      this.maps.policy.set(
        { set, identity: cluster.identity(identity), port, protocol, portLength },
        {
          precedence: entry.precedence ?? 1,
          rule: entry.rule ?? 0,
          verdict: verdictCodes[entry.verdict ?? 'allow'],
          flags: entry.flags ?? 0,
          cell: 0,
        },
      );
    }
    const isolated = options.isolated === true;
    this.maps.ruleSets.set(set, {
      probes,
      flags: isolated ? 1 : 0,
      rule: isolated ? cluster.rules.isolation : 0,
      matcher: 0,
    });
  }

  /** A service of one port; its id is returned. */
  addService(
    front: { address: IpAddress; port: number; protocol: number },
    backends: readonly { address: IpAddress; port: number }[],
    id = 70,
  ): number {
    for (const [slot, backend] of backends.entries()) this.maps.backends.set({ service: id, slot }, backend);
    this.maps.serviceFronts.set(id, { address: front.address, port: front.port });
    this.maps.services.set(front, { id, count: backends.length });
    return id;
  }

  /** Puts the programs on devices of this process's network namespace. */
  attach(devices: { pods: readonly number[]; tunnel?: number; holder?: number }): void {
    for (const ifindex of devices.pods) {
      attachTc(this.#programs.from_pod, ifindex, 'ingress');
      attachTc(this.#programs.to_pod, ifindex, 'egress');
    }
    if (devices.tunnel !== undefined) attachTc(this.#programs.from_tunnel, devices.tunnel, 'ingress');
    if (devices.holder !== undefined) attachTc(this.#programs.from_holder, devices.holder, 'ingress');
  }

  /** Runs a program at any place; the packet is a frame. */
  run(name: ProgramName, bytes: Uint8Array, ctx: Partial<SkBuff> = {}): Outcome {
    return this.#run(this.#programs[name], bytes, ctx);
  }

  #run(program: BpfProgram, bytes: Uint8Array, ctx: Partial<SkBuff>): Outcome {
    this.#ring.drain();
    this.#records.length = 0;
    const result = program.testRun({ data: bytes, ctx: { ifindex: loopback, ...ctx } });
    this.#ring.drain();
    const action = actions[result.retval];
    if (action === undefined) throw new Error(`${program.name} returned ${result.retval}`);
    const events = [...this.#records];
    const denied = events.find(({ verdict }) => verdict === verdictCodes.deny);
    const reason = denied === undefined ? undefined : dropReasonFromCode(denied.reason);
    const left = result.dataOut.slice();
    return {
      action,
      mark: result.ctxOut.mark,
      bytes: left,
      get frame() {
        return readFrame(left);
      },
      events,
      ...(reason === undefined ? {} : { reason }),
    };
  }

  /** Opens so many connections from the first pod to the second, and leaves the events in the ring. */
  runUnread(connections: number): Pick<Outcome, 'action'>[] {
    const { alice, bob } = cluster;
    this.#standAt(alice);
    return Array.from({ length: connections }, (_, i) => {
      const data = outOf(alice, bob, 4, tcp({ source: 1 + i, destination: 80 }));
      const { retval } = this.#programs.from_pod.testRun({ data, ctx: { ifindex: loopback } });
      return { action: actions[retval] ?? 'drop' };
    });
  }

  /** What from_pod makes of a frame that the pod sends. */
  send(pod: Pod, bytes: Uint8Array, ctx: Partial<SkBuff> = {}): Outcome {
    this.#standAt(pod);
    return this.run('from_pod', bytes, ctx);
  }

  /** What to_pod makes of a frame for the pod. */
  receive(pod: Pod, bytes: Uint8Array, mark: number, ctx: Partial<SkBuff> = {}): Outcome {
    this.#standAt(pod);
    return this.run('to_pod', bytes, { ...ctx, mark });
  }

  /**
   * How long from_pod takes for a packet that it leaves as it is (to another node, to the world). A packet that it
   * rewrites would not be the same one the second time.
   * @returns Nanoseconds, the mean over `repeat` runs.
   */
  measure(pod: Pod, bytes: Uint8Array, repeat: number): number {
    this.#standAt(pod);
    return this.#programs.from_pod.testRun({ data: bytes, ctx: { ifindex: loopback }, repeat }).durationNs;
  }

  /** What comes out of a tunnel. The kernel test-runs frames only, so it is the program for devices that have them. */
  runTunnel(bytes: Uint8Array): Outcome {
    return this.run('from_tunnel_ethernet', bytes);
  }

  /** What the engine gives back that held it for the kernel's ESP; framed, as above. */
  runHolder(bytes: Uint8Array): Outcome {
    this.#framed ??= this.#loadWith('from_tunnel', []);
    return this.#run(this.#framed.program('from_holder_ethernet'), bytes, {});
  }

  /** A frame's whole way from one pod of this node to another: the second outcome, or the first if it ends there. */
  travel(from: Pod, to: Pod, bytes: Uint8Array): Outcome {
    const sent = this.send(from, bytes);
    return sent.action === 'redirect' ? this.receive(to, sent.bytes, sent.mark) : sent;
  }

  close(): void {
    this.#ring.close();
    for (const object of this.#extra) object.close();
    this.#objects.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Loads one more object on the same maps, but for those that it is to have of its own. */
  #loadWith(file: string, own: readonly string[]): LoadedObject {
    const maps = new Map<string, BpfMap>();
    for (const map of Object.values(this.maps)) {
      const raw: BpfMap = 'raw' in map ? map.raw : map;
      if (!own.includes(raw.name)) maps.set(raw.name, raw);
    }
    const object = BpfObject.open(join(objectDir, `${file}.bpf.o`)).load({ maps });
    this.#extra.push(object);
    return object;
  }

  /** Test runs happen on the loopback device: it becomes the pod's link. */
  #standAt(pod: Pod): void {
    const endpoint = this.#endpoints.get(pod.id);
    if (endpoint === undefined) this.maps.endpoints.delete(loopback);
    else this.maps.endpoints.set(loopback, endpoint);
  }
}

/** Frames as a pod sends them to its gateway, and as they arrive at its link. */
export const frames = {
  from: (pod: Pod) => ({ source: pod.mac, destination: pod.hostMac }),
  to: (pod: Pod) => ({ source: pod.hostMac, destination: pod.mac }),
} as const;

/** Who is at the other end: pods, the node, the world. */
export interface Addresses {
  readonly address4: IpAddress;
  readonly address6: IpAddress;
}
export type Family = 4 | 6;
export const families: readonly Family[] = [4, 6];

export function addressOf(who: Addresses, family: Family): IpAddress {
  return family === 4 ? who.address4 : who.address6;
}

type Rest = Omit<IpOptions, 'source' | 'destination'>;

/** A packet as the pod sends it to `to`. */
export function outOf(pod: Pod, to: Addresses, family: Family, transport: Transport, rest: Rest = {}): Uint8Array {
  const ends = { source: addressOf(pod, family), destination: addressOf(to, family) };
  return frame(frames.from(pod), ip({ ...ends, ...rest }, transport));
}

/** A packet from `from` as it arrives at the pod's link. */
export function into(pod: Pod, from: Addresses, family: Family, transport: Transport, rest: Rest = {}): Uint8Array {
  const ends = { source: addressOf(from, family), destination: addressOf(pod, family) };
  return frame(frames.to(pod), ip({ ...ends, ...rest }, transport));
}
