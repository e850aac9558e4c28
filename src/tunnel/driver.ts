import type { EventEmitter } from 'node:events';
import type { IpAddress } from '../model/address.ts';
import { MyelinError } from '../model/error.ts';

/**
 * What a tunnel driver is: the part that turns installed security associations into encrypted packets. Drivers know
 * nothing of handshakes, certificates or policy; they are told keys and say when they need some (design.md section 6).
 */

/** Where the other node's ESP-in-UDP socket is. */
export interface UnderlayAddress {
  readonly address: IpAddress;
  readonly port: number;
}

/**
 * The inner addresses of one security association, both of one family, as seen from this node in both directions: a
 * packet sent has source `local` and destination `remote`, a packet received the reverse.
 */
export interface TrafficSelector {
  readonly local: IpAddress;
  readonly remote: IpAddress;
}

export type SaDirection = 'in' | 'out';

/**
 * Names a security association. The receiver chooses the SPI: an inbound SPI is unique on this node, an outbound one
 * only together with its peer. Every SA object below is an `SaId` too.
 */
export interface SaId {
  readonly direction: SaDirection;
  /** 256 … 2³²−1 (RFC 4303 section 2.1 reserves what is below). */
  readonly spi: number;
  readonly peer: UnderlayAddress;
}

/**
 * Limits on what one key protects. An absent one is no limit. Bytes are those of inner packets. The driver reports
 * `soft` once and goes on; at `hard` it reports once and stops using the SA: outbound packets are held with an
 * `acquire` again, inbound ones dropped. Sequence number exhaustion is a hard limit that is always there.
 */
export interface Lifetimes {
  readonly softBytes?: number;
  readonly hardBytes?: number;
  readonly softPackets?: number;
  readonly hardPackets?: number;
}

interface SaParameters {
  readonly spi: number;
  /** One pair of each family at most. */
  readonly selectors: readonly TrafficSelector[];
  readonly peer: UnderlayAddress;
  /** AES-256 key. The driver zeroes this buffer once the SA is installed or refused: a key is installed exactly once. */
  readonly key: Buffer;
  /** The four bytes of nonce salt (RFC 4106 section 4). Zeroed like the key. */
  readonly salt: Buffer;
  readonly lifetimes: Lifetimes;
  /** Opaque to the driver, at most 1 KiB of UTF-8, never secret; `list()` gives it back to an agent that restarted. */
  readonly note: string;
}

export interface InboundSa extends SaParameters {
  readonly direction: 'in';
  /** Packets of disorder that are tolerated: 64 … 32,768, rounded up to a power of two. Default 4,096. */
  readonly replayWindow?: number;
}

export interface OutboundSa extends SaParameters {
  readonly direction: 'out';
}

export interface SaStatistics {
  readonly packets: number;
  /** Of inner packets. */
  readonly bytes: number;
  /** Milliseconds since the SA last carried a packet; absent when it never did. */
  readonly idleMs?: number;
  /** The highest sequence number sent, or received and verified. */
  readonly sequence: number;
  /** Packets dropped for this SA's sake, by reason. */
  readonly drops: Readonly<Partial<Record<TunnelDropReason, number>>>;
}

/** An SA as the driver holds it. Never carries the key. */
export interface InstalledSa extends SaId {
  readonly selectors: readonly TrafficSelector[];
  readonly lifetimes: Lifetimes;
  readonly replayWindow: number;
  readonly note: string;
  /** Reached a hard limit and is out of use. */
  readonly expired: boolean;
  /** Another driver is to have the pair from now on: it wants new keys at once. */
  readonly leaving?: boolean;
  readonly statistics: SaStatistics;
}

/** Why a driver dropped a packet. The codes are `enum drop` of native/stats.h; a number is never given a second meaning. */
export const tunnelDropReasons = {
  UDP_TOO_SHORT: { code: 1, text: 'a datagram too short to be ESP' },
  NON_ESP: { code: 2, text: 'the non-ESP marker: an IKE message, which nothing here speaks' },
  UNKNOWN_SPI: { code: 3, text: 'no security association has this SPI' },
  REPLAYED: { code: 4, text: 'the sequence number was seen before' },
  BEHIND_WINDOW: { code: 5, text: 'the sequence number is older than the replay window' },
  AUTHENTICATION: { code: 6, text: 'the packet was not sealed with this key, or was changed on the way' },
  BAD_LENGTH: { code: 7, text: 'not a length that ESP can have' },
  BAD_PADDING: { code: 8, text: 'padding that RFC 4303 section 2.4 does not allow' },
  BAD_NEXT_HEADER: { code: 9, text: 'the next header is neither IPv4 nor IPv6, or not the inner packet’s version' },
  BAD_INNER: { code: 10, text: 'the inner header contradicts itself or the decrypted length' },
  SELECTOR: { code: 11, text: 'the inner addresses are not those of the security association' },
  EXPIRED_IN: { code: 12, text: 'the inbound security association has reached its hard limit' },
  TUN_WRITE: { code: 13, text: 'the TUN device refused the packet' },
  TUN_MALFORMED: { code: 14, text: 'a packet from the TUN device that is not IPv4 or IPv6, or contradicts itself' },
  TUN_OFFLOAD: { code: 15, text: 'an offload request from the TUN device that is not understood' },
  HOLD_PAIR_FULL: { code: 16, text: 'too many packets of this pair wait for a tunnel' },
  HOLD_TOTAL_FULL: { code: 17, text: 'too many packets wait for tunnels' },
  HOLD_EXPIRED: { code: 18, text: 'no tunnel came up in time' },
  HOLD_FAILED: { code: 19, text: 'the tunnel was refused' },
  UDP_SEND: { code: 20, text: 'the UDP socket refused the packet' },
  TOO_BIG: { code: 21, text: 'larger than the underlay takes' },
  DUMMY: { code: 22, text: 'a dummy packet (RFC 4303 section 2.6), dropped as intended' },
  TUN_NOT_UNICAST: {
    code: 23,
    text: 'a packet from the TUN device that is not between two ordinary unicast addresses',
  },
  HANDOFF_FULL: { code: 25, text: 'the thread that has the security association is behind with what others handed it' },
  ECN: { code: 24, text: 'a router marked congestion on a packet whose sender cannot be told of it (RFC 6040)' },
} as const satisfies Record<string, { code: number; text: string }>;

export type TunnelDropReason = keyof typeof tunnelDropReasons;

/** Drops of one reason, reported at a bounded rate. */
export interface DropReport {
  readonly reason: TunnelDropReason;
  /** Drops of that reason since the last report of it. */
  readonly count: number;
  /** Of the latest of them, as far as known. */
  readonly spi?: number;
  readonly from?: UnderlayAddress;
  readonly selector?: TrafficSelector;
}

export interface DriverStatistics {
  readonly drops: Readonly<Partial<Record<TunnelDropReason, number>>>;
  readonly sealed: { readonly packets: number; readonly bytes: number };
  readonly opened: { readonly packets: number; readonly bytes: number };
  readonly held: { readonly pairs: number; readonly packets: number; readonly bytes: number };
  readonly sas: { readonly in: number; readonly out: number };
  /** The driver's own counters for tuning (batch sizes, system calls), by name. */
  readonly details: Readonly<Record<string, number>>;
}

export interface Expiry {
  readonly sa: SaId;
  readonly cause: 'bytes' | 'packets' | 'sequence';
}

/** Events of a driver, name to arguments, as node's typed EventEmitter wants them. */
export interface TunnelDriverEvents {
  /** Packets of this pair wait and there is no key. Said once until `installOutbound`, `fail`, or the packets expire. */
  acquire: [pair: TrafficSelector];
  soft: [expiry: Expiry];
  hard: [expiry: Expiry];
  /** A packet with an SPI that no inbound SA has: the peer kept what we lost. Rate-limited. */
  unknownSpi: [report: { readonly spi: number; readonly from: UnderlayAddress }];
  /** The newest packet of an inbound SA, authenticated, came from another place than its peer's: a NAT's doing. Repeated. */
  moved: [report: { readonly sa: SaId; readonly from: UnderlayAddress }];
  drop: [report: DropReport];
  /**
   * The driver is usable (again). After it `list()` says what survived: everything after an agent's restart, nothing
   * after an engine's. Pending `acquire`s are repeated.
   */
  up: [];
  /** The driver cannot be reached; requests are refused with `DriverDown` until `up`. Established SAs may go on. */
  down: [cause: Error];
}

export type TunnelErrorCode =
  /** The driver cannot be reached now. */
  | 'DriverDown'
  /** An SA with that direction, SPI (and peer) exists. It was left alone: a key's sequence never starts twice. */
  | 'SaExists'
  | 'NoSuchSa'
  | 'InvalidSa'
  /** The driver's table is full. */
  | 'DriverFull'
  /** The driver answered what its protocol does not allow. */
  | 'DriverProtocol';

export class TunnelError extends MyelinError<TunnelErrorCode> {}

/**
 * One way of carrying SAs. All methods reject with {@link TunnelError}. When an `install…` resolves the SA is in use;
 * several calls in flight are carried out in the order they were made.
 */
export interface TunnelDriver extends EventEmitter<TunnelDriverEvents> {
  readonly name: 'engine' | 'xfrm';
  /**
   * Which SPIs packets may have that this driver is to receive: makes one of a random number of 32 bits. Absent: any above 255.
   */
  readonly spiOf?: (random: number) => number;
  /** From here on packets with this SPI are opened. Install before the peer may send. */
  installInbound(sa: InboundSa): Promise<void>;
  /**
   * From here on packets of these selectors are sealed with this key: the newest SA of a pair is the one that sends.
   * Packets held for the pair are sent first, in their order.
   */
  installOutbound(sa: OutboundSa): Promise<void>;
  /** The key is zeroed when this resolves. With the newest outbound SA gone the next newest of the pair sends, else packets are held. */
  remove(sa: SaId): Promise<void>;
  /** The peer's address changed (a NAT's rebinding); the outbound SA keeps its key and sequence. */
  movePeer(sa: SaId, peer: UnderlayAddress): Promise<void>;
  list(): Promise<InstalledSa[]>;
  statistics(): Promise<DriverStatistics>;
  /** There will be no tunnel for this pair now: drop what is held. The next packet asks again. */
  fail(pair: TrafficSelector): Promise<void>;
  /** Lets go of the driver; what is installed stays installed and goes on carrying packets. */
  close(): Promise<void>;
}

/** @returns The reason's name, or undefined for a code that a newer engine may send. */
export function tunnelDropReasonFromCode(code: number): TunnelDropReason | undefined {
  for (const [name, value] of Object.entries(tunnelDropReasons))
    if (value.code === code) return name as TunnelDropReason;
  return undefined;
}
