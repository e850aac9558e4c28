import type { IpAddress, MacAddress } from '../../src/model/address.ts';
import type { PodView } from '../../src/model/endpoint.ts';
import type {
  DriverStatistics,
  InboundSa,
  InstalledSa,
  OutboundSa,
  SaId,
  TrafficSelector,
  TunnelDriverEvents,
  TunnelErrorCode,
  UnderlayAddress,
} from '../../src/tunnel/driver.ts';
import { pod } from './cluster.ts';

/** What a test and a driver host (driver-host.ts) say to each other. */

export interface HostOptions {
  readonly node: string;
  readonly driver: 'engine' | 'xfrm';
  readonly runDir: string;
  readonly pinDir: string;
  readonly underlay: string;
  readonly endpoint: {
    readonly uid: string;
    readonly device: string;
    readonly mac: MacAddress;
    readonly hostMac: MacAddress;
    readonly addresses: readonly IpAddress[];
  };
  /** Everybody's. */
  readonly pods: readonly HostPod[];
}

export interface HostPod {
  readonly uid: string;
  readonly node: string;
  readonly addresses: readonly string[];
}

export const events = [
  'acquire',
  'soft',
  'hard',
  'unknownSpi',
  'moved',
  'drop',
  'up',
  'down',
] as const satisfies readonly (keyof TunnelDriverEvents)[];
export type HostEvent = (typeof events)[number];

/** What can be asked of a node; `proven` says whether the datapath is told what an inbound association proves. */
export type Request =
  | { readonly method: 'installInbound'; readonly sa: InboundSa; readonly proven: boolean }
  | { readonly method: 'installOutbound'; readonly sa: OutboundSa }
  | { readonly method: 'remove'; readonly sa: SaId }
  | { readonly method: 'movePeer'; readonly sa: SaId; readonly peer: UnderlayAddress }
  | { readonly method: 'keepAlive'; readonly peer: UnderlayAddress }
  | { readonly method: 'fail'; readonly pair: TrafficSelector }
  | { readonly method: 'list' | 'statistics' | 'drops' | 'close' };

export interface Results {
  /** Whether the key was zeroed. */
  readonly installInbound: boolean;
  readonly installOutbound: boolean;
  readonly remove: undefined;
  readonly movePeer: undefined;
  readonly keepAlive: undefined;
  readonly fail: undefined;
  readonly list: InstalledSa[];
  readonly statistics: DriverStatistics;
  /** Of the datapath. */
  readonly drops: readonly { readonly reason: string; readonly packets: number }[];
  readonly close: undefined;
}

export type Call = Request & { readonly id: number };

export type Reply =
  | { readonly kind: 'ready' }
  | { readonly kind: 'result'; readonly id: number; readonly result: unknown }
  | {
      readonly kind: 'error';
      readonly id: number;
      readonly code: TunnelErrorCode | 'unexpected';
      readonly message: string;
    }
  | { readonly kind: 'event'; readonly event: HostEvent; readonly argument: unknown };

export function podOf({ uid, node, addresses }: HostPod): PodView {
  return pod(uid, {}, node, addresses);
}
