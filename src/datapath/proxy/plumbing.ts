import { closeSync, existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { ProgramLink } from '../../kernel/bpf/attach.ts';
import { BpfObject, type LoadedObject } from '../../kernel/bpf/object.ts';
import { errnoError, KernelError } from '../../kernel/error.ts';
import { findLink, ip, ipBatch } from '../../kernel/ip.ts';
import { createNamespace, deleteNamespace, inNamespace, isNamespace } from '../../kernel/netns.ts';
import { listenTcpIn } from '../../kernel/tcp-listener.ts';
import { parseIp } from '../../model/address.ts';
import type { Datapath } from '../datapath.ts';
import { number32, number64 } from '../layouts.ts';
import {
  innerDevice,
  innerLines,
  innerSettings,
  linkLines,
  nodeSettings,
  proxyDevice,
  upLines,
  wired,
} from './wiring.ts';

export interface ProxyPlumbingOptions {
  /** Where the compiled object files are: build/bpf. */
  readonly objectDir: string;
  /** Of the datapath. Without, the way to the listeners ends with this process (tests). */
  readonly pinDir?: string;
  /** Path of the proxy's network namespace, made if it is missing; one for each node and lab. */
  readonly netns: string;
  /** Of the pods' devices. */
  readonly mtu: number;
}

/** Descriptors of two sockets that listen, for IPv4 and for IPv6. Whoever has them closes them. */
export type ProxyListeners = readonly [number, number];

const enodev = 19;
const backlog = 4096;
const linkName = 'proxy_link';
const mapName = 'proxy_listeners';
const families = [parseIp('127.0.0.1'), parseIp('::1')] as const;

/**
 * The proxy's place on this node: a network namespace, the link to it, and which sockets there get the connections. All of it
 * goes on without this process, as does a proxy; the next process finds it. Acts in this process's network namespace.
 */
export class ProxyPlumbing {
  readonly #object: LoadedObject;
  readonly #link: ProgramLink;
  readonly #netns: string;
  /** The node's side of the link. */
  readonly ifindex: number;

  /**
   * Makes the place, or finds the one that there is as it is, and has the datapath use it. What is there in half is made anew.
   * @throws {KernelError} `Command`, `Errno`, `Missing`, `Verifier`: then the datapath has no proxy
   */
  static async open(options: ProxyPlumbingOptions, datapath: Pick<Datapath, 'openProxy'>): Promise<ProxyPlumbing> {
    const { netns, mtu } = options;
    if (!(await isWired(netns))) await wire(options);
    const device = await findLink(proxyDevice);
    if (device === undefined) throw errnoError(enodev, 'find the device', proxyDevice);
    const { object, link } = openLookup(options);
    try {
      datapath.openProxy(device.ifindex);
      await ipBatch([`link set dev ${innerDevice} mtu ${mtu}`], { netns });
      await ipBatch(upLines(mtu));
      writeSettings(nodeSettings);
      return new ProxyPlumbing(object, link, netns, device.ifindex);
    } catch (error) {
      link.close();
      object.close();
      throw error;
    }
  }

  /** Takes the place away, with whatever goes by way of it: its processes have no network any more. */
  static async remove({ netns, pinDir }: Pick<ProxyPlumbingOptions, 'netns' | 'pinDir'>): Promise<void> {
    if ((await findLink(proxyDevice)) !== undefined) await ipBatch([`link del dev ${proxyDevice}`]);
    deleteNamespace(netns);
    removePins(pinDir);
  }

  private constructor(object: LoadedObject, link: ProgramLink, netns: string, ifindex: number) {
    this.#object = object;
    this.#link = link;
    this.#netns = netns;
    this.ifindex = ifindex;
  }

  /**
   * Opens the sockets of a new proxy process. They get nothing until `serve`.
   * @throws {KernelError} `Errno`
   */
  listen(): ProxyListeners {
    const [address4, address6] = families;
    const options = { netns: this.#netns, port: 0, backlog, saveSyn: true };
    const first = listenTcpIn({ ...options, address: address4 });
    try {
      return [first, listenTcpIn({ ...options, address: address6 })];
    } catch (error) {
      closeSync(first);
      throw error;
    }
  }

  /**
   * From now on new connections come to these sockets, and to no others. A proxy that ends takes its own away; until another
   * serves, connections are refused.
   * @throws {KernelError} `Errno`
   */
  serve(listeners: ProxyListeners): void {
    const map = this.#object.map(mapName);
    for (const [slot, fd] of listeners.entries()) map.update(number32.encode(slot), number64.encode(BigInt(fd)));
  }

  /** Whether there are sockets that connections come to. */
  get served(): boolean {
    const map = this.#object.map(mapName);
    return families.every((_, slot) => map.lookup(number32.encode(slot)) !== undefined);
  }

  /** Lets packets of this size through, and no larger ones: what goes by way of the proxy keeps to it. @throws {KernelError} `Command` */
  async setMtu(mtu: number): Promise<void> {
    await ipBatch([`link set dev ${innerDevice} mtu ${mtu}`], { netns: this.#netns });
    await ipBatch(upLines(mtu));
  }

  /** Gives up this process's handles; everything goes on. Without pins, connections are refused from now on. */
  close(): void {
    this.#link.close();
    this.#object.close();
  }
}

const linkInfo = z.array(z.object({ ifindex: z.number(), ifalias: z.string().optional() })).min(1);

/** Whether the namespace is there, whole, and joined to this one. */
async function isWired(netns: string): Promise<boolean> {
  const outer = await findLink(proxyDevice);
  if (outer === undefined || !isNamespace(netns)) return false;
  const shown = await ip(['link', 'show', 'dev', innerDevice], { netns }).catch(() => []);
  const inner = linkInfo.safeParse(shown).data?.[0];
  return inner?.ifalias === wired && inner.ifindex === outer.peerIndex;
}

async function wire({ netns, pinDir, mtu }: ProxyPlumbingOptions): Promise<void> {
  // Of the link to the namespace that was: the pinned map, and who listens, belong to it too.
  await ProxyPlumbing.remove({ netns, ...(pinDir === undefined ? {} : { pinDir }) });
  await createNamespace(netns);
  await ipBatch(linkLines(netns, mtu));
  inNamespace(netns, () => writeSettings(innerSettings));
  await ipBatch([`link set dev ${innerDevice} up`], { netns });
  for (const family of existsSync('/proc/sys/net/ipv6') ? ([4, 6] as const) : ([4] as const))
    await ipBatch(innerLines(family), { netns, family });
  await ipBatch([`link set dev ${innerDevice} alias ${wired}`], { netns });
}

function openLookup({ objectDir, pinDir, netns }: ProxyPlumbingOptions) {
  const object = BpfObject.open(join(objectDir, 'proxy_lookup.bpf.o')).load(pinDir === undefined ? {} : { pinDir });
  try {
    const pin = pinDir === undefined ? undefined : join(pinDir, linkName);
    return { object, link: ProgramLink.skLookup(object.program('proxy_lookup'), netns, pin) };
  } catch (error) {
    object.close();
    throw error;
  }
}

/** Those of a family that the kernel does not have are left out. */
function writeSettings(settings: Readonly<Record<string, string>>): void {
  for (const [path, value] of Object.entries(settings)) {
    const file = `/proc/sys/${path}`;
    if (!existsSync(file)) continue;
    try {
      writeFileSync(file, value);
    } catch (cause) {
      const message = `cannot set ${path.replaceAll('/', '.')} to ${value}`;
      throw new KernelError('Missing', message, { operation: 'set', object: path }, cause);
    }
  }
}

function removePins(pinDir: string | undefined): void {
  if (pinDir !== undefined) for (const name of [linkName, mapName]) rmSync(join(pinDir, name), { force: true });
}
