import type { Logger } from 'pino';
import type { Svid } from '../identity/svid.ts';
import type { InboundSa, OutboundSa, SaId, TunnelDriver } from './driver.ts';
import type { Cancel } from './handshake/cancel.ts';
import type { HandshakeCounters } from './handshake/counters.ts';
import type { BreachRadius } from './handshake/exchange.ts';
import type { WireLifetime } from './handshake/messages.ts';
import type { PeerVerifier } from './handshake/peer.ts';
import type { TlsWork } from './handshake/work.ts';
import type { NodeSessions } from './node-sessions.ts';
import type { SaNote } from './note.ts';
import type { PairTiming } from './pair-state.ts';
import type { LocalPod, RemotePod } from './peers.ts';
import type { SaHolders, SpiPool, TunnelHooks } from './sa-ledger.ts';
import type { Slots } from './slots.ts';
import type { Tunnel } from './tunnel.ts';

/** What every tunnel of a node shares. */
export interface TunnelServices {
  readonly trustDomain: string;
  readonly driver: TunnelDriver;
  readonly hooks: TunnelHooks;
  readonly svid: (podUid: string) => Svid | undefined;
  readonly work: TlsWork;
  readonly verifier: PeerVerifier;
  readonly counters: HandshakeCounters;
  readonly logger: Logger;
  readonly timing: PairTiming;
  readonly dials: Slots;
  readonly nodes: NodeSessions;
  /** What the two pods' namespaces ask for: `pod` wherever one of them does. */
  readonly radius: (local: LocalPod, remote: RemotePod) => BreachRadius;
  /** When this node's own certificate ends. Unix milliseconds. */
  readonly nodeNotAfter: () => number;
  readonly spis: SpiPool;
  readonly holders: SaHolders<Tunnel>;
  /** Makes sure that no other pod is held to be at the tunnel's remote addresses, at once where none is. @throws {HandshakeError} */
  readonly claim: (tunnel: Tunnel, cancel: Cancel) => Promise<void> | undefined;
  /** @returns Why the two pods may have no tunnel, in words, or undefined. */
  readonly whyNot: (local: LocalPod, remote: RemotePod) => string | undefined;
  /** @returns Why the two are not believed any more, as the newest trust bundle says, or undefined. */
  readonly whyRevoked: (pair: Pick<Tunnel, 'local' | 'remote'>, peerSerials: readonly string[]) => string | undefined;
  /** Is shown every key before the driver has it. Absent: nobody is. */
  readonly onKeys?: (sa: InboundSa | OutboundSa) => void;
  /** Whether one of the SAs has carried a packet. */
  readonly isUsed: (sas: readonly SaId[]) => Promise<boolean>;
  readonly onHandshake: (tunnel: Tunnel, role: Role, outcome: string, ms: number) => void;
  readonly now: () => number;
  readonly random: () => number;
  readonly settings: {
    readonly espPort: number;
    readonly handshakePort: number;
    readonly lifetime: WireLifetime;
    readonly replayWindow: number | undefined;
    readonly timeoutMs: number;
  };
}

export type Role = 'initiator' | 'responder';

/** What the handshake that is up proved, for people. */
export type Proven = Pick<SaNote, 'remoteSpiffeId' | 'remoteSerial' | 'cipher' | 'group' | 'radius' | 'nodeSerial'>;
