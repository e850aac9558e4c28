import type { PodPeer } from '../../identity/verify.ts';
import { familyOf } from '../../model/address.ts';
import type { TrafficSelector } from '../driver.ts';
import type { Channel, Conversation } from './channel.ts';
import { HandshakeError } from './error.ts';
import { type DirectionKeys, deriveKeys, type SessionKeys, wipeKeys } from './keys.ts';
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

/**
 * How far a stolen key reaches (docs/TUNNELS.md). `pod`: each pod pair has a handshake and keys of its own. `node`: the
 * pairs of two nodes derive theirs from one handshake of the nodes.
 */
export type BreachRadius = 'pod' | 'node';

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
  readonly radius: BreachRadius;
  /** Serial number of the certificate of the peer's node, where that is what was proven. */
  readonly nodeSerial?: string;
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
    radius: 'pod',
    ...context,
    selectors: proposal.selectors,
    spiIn: proposal.spi,
    spiOut: answer.spi,
    peerPort: answer.port,
    lifetime: shorter(proposal.lifetime, answer.lifetime),
  };
  const keys = await deriveKeys(channel.link, offerLine, answerLine);
  await installAsInitiator(channel, installer, agreement, keys, hurry);
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
  decide: (selectors: readonly TrafficSelector[]) => Proposal,
  installer: Installer,
): Promise<Agreement> {
  const { message: offer, line: offerLine } = await channel.receive('offer');
  const selectors = offer.selectors.map(({ initiator, responder }) => ({ local: responder, remote: initiator }));
  checkFamilies(selectors);
  const proposal = decide(selectors);
  const lifetime = shorter(proposal.lifetime, offer.lifetime);
  const answer: Answer = { type: 'answer', ...wireTerms({ ...proposal, lifetime }), selectors: offer.selectors };
  const answerLine = encodeMessage(answer);
  const agreement: Agreement = {
    initiator: false,
    radius: 'pod',
    ...context,
    group: offer.group,
    selectors,
    spiIn: proposal.spi,
    spiOut: offer.spi,
    peerPort: offer.port,
    lifetime,
  };
  const keys = await deriveKeys(channel.link, offerLine, answerLine);
  await installAsResponder(channel, installer, agreement, keys, answerLine);
  return agreement;
}

/** The end of every exchange, as the side that began it. Zeroes what no driver took. @throws {HandshakeError} */
export async function installAsInitiator(
  conversation: Conversation,
  installer: Installer,
  agreement: Agreement,
  keys: SessionKeys,
  hurry: boolean,
): Promise<void> {
  try {
    await installer.installInbound(agreement, keys.responderToInitiator);
    conversation.sendInstalled();
    if (!hurry) await conversation.receiveInstalled();
    await installer.installOutbound(agreement, keys.initiatorToResponder);
    if (hurry) await conversation.receiveInstalled();
  } finally {
    wipeKeys(keys);
  }
}

/**
 * The end of every exchange, as the side that was asked. Zeroes what no driver took.
 * @param answer As it is sent.
 * @throws {HandshakeError}
 */
export async function installAsResponder(
  conversation: Conversation,
  installer: Installer,
  agreement: Agreement,
  keys: SessionKeys,
  answer: string,
): Promise<void> {
  try {
    await installer.installInbound(agreement, keys.initiatorToResponder);
    // Only now: the answer says that this side can receive.
    conversation.sendEncoded(answer);
    await conversation.receiveInstalled();
    await installer.installOutbound(agreement, keys.responderToInitiator);
    conversation.sendInstalled();
  } finally {
    wipeKeys(keys);
  }
}

/** What both kinds of offer and answer have in common. */
function wireTerms({ spi, port, lifetime }: Proposal): Omit<Offer, 'type' | 'selectors' | 'group'> {
  return { version: protocolVersion, spi, transform, encapsulation: 'udp', port, lifetime };
}

/** Whether an answer is about the same addresses as the offer. */
export function sameSelectors(offered: readonly WireSelector[], answered: readonly WireSelector[]): boolean {
  // As a rule they come back as they went.
  const isSame = (one: WireSelector, i: number) =>
    one.initiator === answered[i]?.initiator && one.responder === answered[i]?.responder;
  if (offered.length === answered.length && offered.every(isSame)) return true;
  const text = (selectors: readonly WireSelector[]) =>
    selectors
      .map(({ initiator, responder }) => `${initiator} ${responder}`)
      .sort()
      .join();
  return text(offered) === text(answered);
}

/** @throws {HandshakeError} `selectors` unless each pair is of one family and each family there once. */
export function checkFamilies(selectors: readonly TrafficSelector[]): void {
  const mixed = selectors.some(({ local, remote }) => familyOf(local) !== familyOf(remote));
  const isTwice = selectors.some(({ local }, i) => i > 0 && familyOf(local) === familyOf(selectors[0]?.local ?? local));
  if (mixed || isTwice || selectors.length > 2)
    throw new HandshakeError('selectors', 'each address family may be offered once, and not mixed');
}
