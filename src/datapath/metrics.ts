import { type Direction, type DropReason, dropReasonFromCode } from '../model/verdict.ts';
import type { DatapathMaps } from './objects.ts';

export interface Count {
  readonly packets: number;
  readonly bytes: number;
}

export interface DropCount extends Count {
  /** A code that this version does not know is given as a number. */
  readonly reason: DropReason | number;
  readonly direction: Direction;
}

/** Since the maps were made, over all CPUs. */
export interface DatapathMetrics {
  readonly forwarded: Readonly<Record<Direction, Count>>;
  /** Only reasons that occurred, in the order of their codes. */
  readonly drops: readonly DropCount[];
  /** What passed and audited policies would have denied: the packets with which connections were judged. */
  readonly audited: Readonly<Record<Direction, Count>>;
}

/** `AUDITED` in bpf/lib/reasons.h, which is no reason to drop. */
export const auditedSlot = 63;
const directions: readonly Direction[] = ['egress', 'ingress'];

/** Sums the map `metrics`: index reason × 2 + (0 egress, 1 ingress); reason 0 is what was forwarded. */
export function readMetrics(maps: Pick<DatapathMaps, 'metrics'>): DatapathMetrics {
  const count = (index: number): Count => {
    const sum = { packets: 0, bytes: 0 };
    for (const { packets, bytes } of maps.metrics.perCpu(index)) {
      sum.packets += Number(packets);
      sum.bytes += Number(bytes);
    }
    return sum;
  };
  const drops: DropCount[] = [];
  for (let code = 1; code < auditedSlot; code++)
    for (const [i, direction] of directions.entries()) {
      const counted = count(2 * code + i);
      if (counted.packets > 0) drops.push({ reason: dropReasonFromCode(code) ?? code, direction, ...counted });
    }
  return {
    forwarded: { egress: count(0), ingress: count(1) },
    drops,
    audited: { egress: count(2 * auditedSlot), ingress: count(2 * auditedSlot + 1) },
  };
}
