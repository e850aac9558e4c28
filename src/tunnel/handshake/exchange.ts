import type { PodPeer } from '../../identity/verify.ts';
import { familyOf } from '../../model/address.ts';
import type { TrafficSelector } from '../driver.ts';
import type { Channel } from './channel.ts';
import { HandshakeError } from './error.ts';
import { type DirectionKeys, deriveKeys, wipeKeys } from './keys.ts';
import {
  type Answer,
  encodeMessage,
  type Offer,
  protocolVersion,
  shorter,
  transform,
  type WireLifetime,
  type WireSelector,
} from './messages.ts';

/** What both sides hold to once a handshake is done, as this side sees it. */
export interface Agreement {
  readonly initiator: boolean;
  readonly peer: PodPeer;
  readonly selectors: readonly TrafficSelector[];
  /** Of packets to this node. */
  readonly spiIn: number;
  readonly spiOut: number;
  /** The peer's ESP-in-UDP port; its address is routing's to know. */
  readonly peerPort: number;
  readonly lifetime: WireLifetime;
  /** TLS cipher suite and group that the keys come out of; a responder knows the group from its peer's word. */
  readonly cipher: string;
  readonly group: string | undefined;
}

/** What this side brings into the exchange. */
export interface Proposal {
  readonly spi: number;
  readonly selectors: readonly TrafficSelector[];
  readonly port: number;
  readonly lifetime: WireLifetime;
}

/** What carries the keys. Both promises resolve when the SA is in use; a rejection ends the handshake. */
export interface Installer {
  /** Called before the peer may send. */
  installInbound(agreement: Agreement, keys: DirectionKeys): Promise<void>;
  /** Called once the peer has said that it can receive. */
  installOutbound(agreement: Agreement, keys: DirectionKeys): Promise<void>;
}

/**
 * Runs the exchange as the side that began it.
 * @param hurry Send as soon as the peer can receive, which its answer says, because packets wait. A renewal rather
 *   waits for the peer's last word: should the handshake still fail, nothing was sent under keys that are thrown away.
 * @throws {HandshakeError}
 */
export async function initiate(
  channel: Channel,
  context: { readonly peer: PodPeer; readonly cipher: string; readonly group: string | undefined },
  proposal: Proposal,
  installer: Installer,
  hurry: boolean,
): Promise<Agreement> {
  const selectors = proposal.selectors.map(({ local, remote }) => ({ initiator: local, responder: remote }));
  const offerLine = channel.send({ type: 'offer', ...wireTerms(proposal), selectors, group: context.group });
  const { message: answer, line: answerLine } = await channel.receive('answer');
  if (!sameSelectors(selectors, answer.selectors)) throw new HandshakeError('selectors');
  const agreement: Agreement = {
    initiator: true,
    ...context,
    selectors: proposal.selectors,
    spiIn: proposal.spi,
    spiOut: answer.spi,
    peerPort: answer.port,
    lifetime: shorter(proposal.lifetime, answer.lifetime),
  };
  const keys = deriveKeys(channel.socket, offerLine, answerLine);
  try {
    await installer.installInbound(agreement, keys.responderToInitiator);
    channel.send({ type: 'installed' });
    if (!hurry) await channel.receive('installed');
    await installer.installOutbound(agreement, keys.initiatorToResponder);
    if (hurry) await channel.receive('installed');
  } finally {
    wipeKeys(keys);
  }
  return agreement;
}

/**
 * Runs the exchange as the side that was asked.
 * @param decide Looks at the offer's selectors, seen from this side, and says what to answer, or throws why not.
 * @throws {HandshakeError}
 */
export async function respond(
  channel: Channel,
  context: { readonly peer: PodPeer; readonly cipher: string },
  decide: (selectors: readonly TrafficSelector[]) => Promise<Proposal>,
  installer: Installer,
): Promise<Agreement> {
  const { message: offer, line: offerLine } = await channel.receive('offer');
  const selectors = offer.selectors.map(({ initiator, responder }) => ({ local: responder, remote: initiator }));
  checkFamilies(selectors);
  const proposal = await decide(selectors);
  const lifetime = shorter(proposal.lifetime, offer.lifetime);
  const answer: Answer = { type: 'answer', ...wireTerms({ ...proposal, lifetime }), selectors: offer.selectors };
  const answerLine = encodeMessage(answer);
  const agreement: Agreement = {
    initiator: false,
    ...context,
    group: offer.group,
    selectors,
    spiIn: proposal.spi,
    spiOut: offer.spi,
    peerPort: offer.port,
    lifetime,
  };
  const keys = deriveKeys(channel.socket, offerLine, answerLine);
  try {
    await installer.installInbound(agreement, keys.initiatorToResponder);
    // Only now: the answer says that this side can receive.
    channel.sendLine(answerLine);
    await channel.receive('installed');
    await installer.installOutbound(agreement, keys.responderToInitiator);
    channel.send({ type: 'installed' });
  } finally {
    wipeKeys(keys);
  }
  return agreement;
}

function wireTerms({ spi, port, lifetime }: Proposal): Omit<Offer, 'type' | 'selectors' | 'group'> {
  return { version: protocolVersion, spi, transform, encapsulation: 'udp', port, lifetime };
}

function sameSelectors(offered: readonly WireSelector[], answered: readonly WireSelector[]): boolean {
  const text = (selectors: readonly WireSelector[]) =>
    selectors
      .map(({ initiator, responder }) => `${initiator} ${responder}`)
      .sort()
      .join();
  return text(offered) === text(answered);
}

/** @throws {HandshakeError} `selectors` unless each pair is of one family and each family there once. */
function checkFamilies(selectors: readonly TrafficSelector[]): void {
  const mixed = selectors.some(({ local, remote }) => familyOf(local) !== familyOf(remote));
  if (mixed || new Set(selectors.map(({ local }) => familyOf(local))).size !== selectors.length)
    throw new HandshakeError('selectors', 'each address family may be offered once, and not mixed');
}
