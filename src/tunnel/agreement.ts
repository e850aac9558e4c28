import type { InboundSa, Lifetimes, OutboundSa, UnderlayAddress } from './driver.ts';
import type { Agreement } from './handshake/exchange.ts';
import type { DirectionKeys } from './handshake/keys.ts';
import { driverLifetimes } from './handshake/messages.ts';
import { encodeNote } from './note.ts';
import type { Established } from './pair.ts';
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

/** What an SA is made of. */
export interface Installation {
  readonly agreement: Agreement;
  readonly established: Established;
  readonly local: LocalPod;
  readonly remote: RemotePod;
  /** Where a NAT has put the peer. */
  readonly path: UnderlayAddress | undefined;
  readonly keys: DirectionKeys;
  /** {@link noteOf} it. */
  readonly note: string;
}

export function inboundSa(installation: Installation, replayWindow: number | undefined): InboundSa {
  const common = parameters(installation);
  const window = replayWindow === undefined ? {} : { replayWindow };
  return { direction: 'in', spi: installation.agreement.spiIn, ...common, ...window };
}

export function outboundSa(installation: Installation): OutboundSa {
  return { direction: 'out', spi: installation.agreement.spiOut, ...parameters(installation) };
}

/** What is noted beside both halves of what was agreed on. */
export function noteOf({
  agreement,
  established,
  local,
  remote,
}: Pick<Installation, 'agreement' | 'established' | 'local' | 'remote'>): string {
  const { peer, cipher, group, radius, nodeSerial } = agreement;
  return encodeNote({
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
  });
}

function parameters({
  agreement,
  remote,
  path,
  keys,
  note,
}: Installation): Omit<OutboundSa, 'direction' | 'spi'> & { readonly lifetimes: Lifetimes } {
  return {
    selectors: agreement.selectors,
    peer: path ?? { address: remote.node.address, port: agreement.peerPort },
    key: keys.key,
    salt: keys.salt,
    lifetimes: driverLifetimes(agreement.lifetime, agreement.initiator),
    note,
  };
}
