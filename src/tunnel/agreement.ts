import type { InboundSa, Lifetimes, OutboundSa, TrafficSelector, UnderlayAddress } from './driver.ts';
import type { Agreement } from './handshake/exchange.ts';
import type { DirectionKeys } from './handshake/keys.ts';
import { driverLifetimes } from './handshake/messages.ts';
import { encodeNote } from './note.ts';
import type { Established } from './pair-state.ts';
import type { LocalPod, RemotePod } from './peers.ts';

/**
 * When what was agreed is renewed and when it ends. No key outlives the proofs that it stands on: of both sides'
 * certificates and the agreed lifetime the earliest counts, less the grace period that received packets still have.
 * @param ownNotAfter When this side's certificate ends. Unix milliseconds, as is `now`.
 */
export function schedule(
  agreement: Agreement,
  ownNotAfter: number,
  context: { readonly now: number; readonly random: number; readonly graceMs: number },
): Established {
  const { now, random, graceMs } = context;
  const proven = Math.min(agreement.peer.notAfter, ownNotAfter) - now;
  const left = Math.max(0, Math.min(agreement.lifetime.seconds * 1000, proven - Math.min(graceMs, proven / 4)));
  // The side that began renews first, so that the two seldom begin together.
  const share = agreement.initiator ? 0.75 + 0.1 * random : 0.9 + 0.05 * random;
  return {
    spiIn: agreement.spiIn,
    spiOut: agreement.spiOut,
    establishedAt: now,
    rekeyAt: now + left * share,
    expiresAt: now + left,
  };
}

/** What both halves of an agreement have in common, as the driver is told it. */
export interface SaTerms {
  readonly selectors: readonly TrafficSelector[];
  readonly lifetimes: Lifetimes;
  /** So that a later agent knows what the SA is. */
  readonly note: string;
}

export function saTerms(agreement: Agreement, established: Established, local: LocalPod, remote: RemotePod): SaTerms {
  const { peer, cipher, group, radius, nodeSerial, selectors, lifetime, initiator } = agreement;
  const note = encodeNote(
    {
      ...established,
      localUid: local.pod.uid,
      remote: remote.pod,
      remoteSpiffeId: peer.spiffeId,
      remoteSerial: peer.serialNumber,
      node: remote.node.name,
      cipher,
      group,
      radius,
      nodeSerial,
    },
    peer,
  );
  return { selectors, lifetimes: driverLifetimes(lifetime, initiator), note };
}

export function inboundSa(
  spi: number,
  { selectors, lifetimes, note }: SaTerms,
  peer: UnderlayAddress,
  { key, salt }: DirectionKeys,
  replayWindow: number | undefined,
): InboundSa {
  const sa: InboundSa = { direction: 'in', spi, selectors, peer, key, salt, lifetimes, note };
  return replayWindow === undefined ? sa : { ...sa, replayWindow };
}

export function outboundSa(
  spi: number,
  { selectors, lifetimes, note }: SaTerms,
  peer: UnderlayAddress,
  { key, salt }: DirectionKeys,
): OutboundSa {
  return { direction: 'out', spi, selectors, peer, key, salt, lifetimes, note };
}
