import { writeFileSync } from 'node:fs';
import { KernelError } from '../kernel/error.ts';
import { findLink } from '../kernel/ip.ts';
import { nft } from '../kernel/nft.ts';
import { MyelinError } from '../model/error.ts';
import type { Prefix } from '../model/prefix.ts';
import { nftScript, nodeSysctls } from './node-rules.ts';

export class NodeSetupError extends MyelinError<'NoUplink'> {}

/**
 * What a pod's packet may be at most, so that sealed it fits the underlay without being fragmented: outer IPv6 (40), UDP (8),
 * ESP header (8), IV (8), padding and trailer to a multiple of four (up to 5), ICV (16), rounded up to 96 for headroom.
 */
const tunnelOverhead = 96;

export interface Uplink {
  readonly ifindex: number;
  readonly mtu: number;
  /** Of the pods' devices and of the tunnel device. */
  readonly podMtu: number;
}

/** The MTU of pods' devices over an underlay of this one. */
export function podMtuOver(mtu: number): number {
  return mtu - tunnelOverhead;
}

/**
 * @param most What the underlay takes, where that is less than the device says.
 * @throws {NodeSetupError} `NoUplink`
 */
export async function findUplink(name: string, most = Number.POSITIVE_INFINITY): Promise<Uplink> {
  const link = await findLink(name);
  if (link === undefined)
    throw new NodeSetupError(
      'NoUplink',
      `there is no device ${name}: name the one that reaches the other nodes with --uplink`,
    );
  const mtu = Math.min(link.mtu, most);
  return { ifindex: link.ifindex, mtu, podMtu: podMtuOver(mtu) };
}

/**
 * Lets the node forward, and gives it its nftables table. Idempotent; what a node before this one set is replaced.
 * @throws {KernelError} `Missing` (nft), `Errno`
 */
export async function setUpNode(options: {
  uplink: string;
  tunnel: string;
  nodePods: readonly Prefix[];
  clusterPods: readonly Prefix[];
}): Promise<void> {
  for (const [path, value] of Object.entries(nodeSysctls)) {
    try {
      writeFileSync(`/proc/sys/${path}`, value);
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new KernelError(
        'Missing',
        `cannot set ${path.replaceAll('/', '.')} to ${value}: ${why}`,
        { operation: 'set', object: path },
        cause,
      );
    }
  }
  await nft(nftScript(options));
}
