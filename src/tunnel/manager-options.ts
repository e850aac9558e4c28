import type { Logger } from 'pino';
import type { BundleStore } from '../identity/bundle.ts';
import type { Svid } from '../identity/svid.ts';
import type { TunnelDriver } from './driver.ts';
import type { TlsIdentity } from './handshake/credentials.ts';
import type { BreachRadius } from './handshake/exchange.ts';
import type { HandshakeServerOptions } from './handshake/server.ts';
import type { TlsWorkOptions } from './handshake/work.ts';
import type { PairTiming } from './pair-state.ts';
import type { LocalPod, PeerResolver, RemotePod } from './peers.ts';
import type { TunnelHooks } from './sa-ledger.ts';
import type { TunnelServices } from './services.ts';

export interface TunnelManagerOptions {
  readonly trustDomain: string;
  /** Address to take handshakes on; default all. */
  readonly host?: string;
  /** TCP, on every node. Default 4747; 0 takes any free one. */
  readonly handshakePort?: number;
  /** UDP, this node's. Default 4500. */
  readonly espPort?: number;
  /** TLS groups in order of preference; default the post-quantum hybrid, then X25519. */
  readonly groups?: string;
  /** Of a key. Default one hour, 2^36 bytes, 2^40 packets; the peer's limits count too. */
  readonly lifetimeSeconds?: number;
  readonly lifetimeBytes?: number;
  readonly lifetimePackets?: number;
  readonly replayWindow?: number;
  /** For TLS and for each message. Default 5 s. */
  readonly timeoutMs?: number;
  /** Handshakes that this node may have begun at once. Default 32. */
  readonly mostDials?: number;
  readonly limits?: HandshakeServerOptions['limits'];
  /** Threads for handshakes, and how many of them are done without. */
  readonly threads?: Pick<TlsWorkOptions, 'most' | 'idleMs' | 'mostHere'>;
  readonly timing?: Partial<PairTiming>;
  /** Of a handshake of two nodes that keys are derived from: default as long as a key's, and a minute without a pair. */
  readonly nodeSessionSeconds?: number;
  readonly nodeIdleSeconds?: number;
  /** One notice of lost keys to a node in this time. Default 250 ms. */
  readonly noticeIntervalMs?: number;
}

export interface TunnelManagerDeps {
  readonly driver: TunnelDriver;
  readonly svid: (podUid: string) => Svid | undefined;
  readonly nodeIdentity: () => TlsIdentity | undefined;
  readonly bundles: BundleStore;
  readonly resolver: PeerResolver;
  readonly hooks: TunnelHooks;
  readonly logger: Logger;
  /**
   * Why policy admits nothing between the two pods in either direction, or undefined. Absent: everybody may try. Asked before
   * this side begins only: whoever is answered gets a tunnel, so that what ingress policy denies is a flow with ports and a
   * rule, and not a tunnel that never came.
   */
  readonly whyNot?: (local: LocalPod, remote: RemotePod) => string | undefined;
  /** What the two pods' namespaces ask for: `pod` wherever one of them does. Default `pod`. */
  readonly radius?: (local: LocalPod, remote: RemotePod) => BreachRadius;
  /** Is shown every key before the driver has it, for debugging. */
  readonly onKeys?: TunnelServices['onKeys'];
  /** Unix milliseconds; default Date.now. */
  readonly now?: () => number;
  /** In [0, 1); default Math.random. */
  readonly random?: () => number;
}
