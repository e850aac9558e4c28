import type { Logger } from 'pino';
import { type IpAddress, ipFromBytes, ipToBytes } from '../model/address.ts';
import { MyelinError } from '../model/error.ts';
import { type Prefix, prefixOf, prefixParts, prefixWithin } from '../model/prefix.ts';

export interface NodeCidrs {
  readonly name: string;
  readonly podCidrs: readonly Prefix[];
  readonly resourceVersion: string;
}

export interface NodeStore {
  nodes(): NodeCidrs[];
  /** Calls back after every change of a node. @returns Ends it. */
  onNodes(listener: () => void): () => void;
  /** Writes the node's prefixes, unless the node has changed since it was read. */
  setPodCidrs(node: NodeCidrs, podCidrs: readonly Prefix[]): Promise<void>;
}

/** A prefix of the cluster, and how long the prefixes are that its nodes get of it. */
export interface ClusterCidr {
  readonly prefix: Prefix;
  readonly nodeLength: number;
}

/** /24 of IPv4 and /64 of IPv6. @throws {MyelinError} `InvalidPrefix` where the cluster's is too small for that. */
export function clusterCidr(prefix: Prefix): ClusterCidr {
  const { length, family } = prefixParts(prefix);
  const nodeLength = family === 4 ? 24 : 64;
  if (length > nodeLength)
    throw new MyelinError('InvalidPrefix', `${prefix} has no room for a node: it must be /${nodeLength} or wider`);
  return { prefix, nodeLength };
}

/**
 * Gives every node that has none its prefixes: the first place that is free in all of the cluster's prefixes, so that a
 * node's prefixes carry the same number in both families. Pure. Nodes without a place are left out.
 * @param nodes In the order in which they are served; what they have stays theirs, whoever gave it.
 */
export function assignCidrs(
  cluster: readonly ClusterCidr[],
  nodes: readonly NodeCidrs[],
): Map<NodeCidrs, readonly Prefix[]> {
  const taken = new Set(nodes.flatMap(({ podCidrs }) => podCidrs).flatMap((prefix) => placesOf(cluster, prefix)));
  const places = Math.min(...cluster.map(roomOf));
  const assigned = new Map<NodeCidrs, readonly Prefix[]>();
  let place = 0;
  for (const node of nodes) {
    if (node.podCidrs.length > 0) continue;
    while (taken.has(place)) place++;
    if (place >= places) break;
    const free = place++;
    assigned.set(
      node,
      cluster.map((cidr) => nthPrefix(cidr, free)),
    );
  }
  return assigned;
}

/** The places that a node's prefix takes, wherever it came from: none outside of the cluster, several where it is wide. */
function placesOf(cluster: readonly ClusterCidr[], prefix: Prefix): number[] {
  const { address, length } = prefixParts(prefix);
  return cluster.flatMap((cidr) => {
    if (prefixWithin(cidr.prefix, prefix)) return Array.from({ length: roomOf(cidr) }, (_, i) => i);
    if (!prefixWithin(prefix, cidr.prefix)) return [];
    const bits = [...ipToBytes(address)].map((byte) => byte.toString(2).padStart(8, '0')).join('');
    const first = Number.parseInt(`0${bits.slice(prefixParts(cidr.prefix).length, cidr.nodeLength)}`, 2);
    if (first >= mostPlaces) return [];
    return Array.from({ length: 2 ** Math.max(0, cidr.nodeLength - length) }, (_, i) => first + i);
  });
}

/** As many as are counted: more nodes than this are not expected of one controller. */
const mostPlaces = 65_536;

function roomOf({ prefix, nodeLength }: ClusterCidr): number {
  return Math.min(mostPlaces, 2 ** (nodeLength - prefixParts(prefix).length));
}

function nthPrefix({ prefix, nodeLength }: ClusterCidr, n: number): Prefix {
  const bytes = Uint8Array.from(ipToBytes(prefixParts(prefix).address));
  // The number's lowest bit is the last bit of the node's prefix.
  for (let bit = nodeLength - 1, rest = n; rest > 0; bit--, rest >>>= 1)
    if ((rest & 1) === 1) bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) | (0x80 >> (bit & 7));
  const address: IpAddress = ipFromBytes(bytes);
  return prefixOf(address, nodeLength);
}

/** Keeps every node supplied with prefixes. One controller at a time may run it (see leader.ts). */
export class NodeCidrController {
  readonly #cluster: readonly ClusterCidr[];
  readonly #store: NodeStore;
  readonly #logger: Logger;
  #running: Promise<void> | undefined;
  #again = false;
  #stop: (() => void) | undefined;
  #retry: NodeJS.Timeout | undefined;

  constructor(cluster: readonly ClusterCidr[], deps: { readonly store: NodeStore; readonly logger: Logger }) {
    this.#cluster = cluster;
    this.#store = deps.store;
    this.#logger = deps.logger;
  }

  start(): void {
    this.#stop ??= this.#store.onNodes(() => this.#schedule());
    this.#schedule();
  }

  async close(): Promise<void> {
    this.#stop?.();
    this.#stop = undefined;
    clearTimeout(this.#retry);
    await this.#running;
  }

  #schedule(): void {
    this.#again = true;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
  }

  async #run(): Promise<void> {
    while (this.#again) {
      this.#again = false;
      // The whole batch of a first list is there after this turn.
      await new Promise((resolve) => setImmediate(resolve));
      if (this.#stop === undefined) return;
      await this.#assign();
    }
  }

  async #assign(): Promise<void> {
    const nodes = this.#store.nodes().sort((a, b) => (a.name < b.name ? -1 : 1));
    const assigned = assignCidrs(this.#cluster, nodes);
    for (const node of nodes)
      if (node.podCidrs.length === 0 && !assigned.has(node))
        this.#logger.error({ node: node.name }, 'no pod CIDR is left for a node: the cluster’s pod CIDRs are used up');
    for (const [node, podCidrs] of assigned) {
      try {
        await this.#store.setPodCidrs(node, podCidrs);
        this.#logger.info({ node: node.name, podCidrs }, 'a node got its pod CIDRs');
      } catch (error) {
        // Changed meanwhile, or the API is away: looked at again with the next change, and in a second at the latest.
        this.#logger.debug({ node: node.name, err: error }, 'a node’s pod CIDRs could not be written');
        clearTimeout(this.#retry);
        this.#retry = setTimeout(() => this.#schedule(), 1000);
        this.#retry.unref();
      }
    }
  }
}
