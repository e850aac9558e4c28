import { randomBytes } from 'node:crypto';
import type { PodPeer } from '../../identity/verify.ts';
import type { SpiffeId } from '../../model/identity.ts';
import type { TrafficSelector } from '../driver.ts';
import { HandshakeError } from './error.ts';
import {
  type Agreement,
  checkFamilies,
  type Installer,
  installAsInitiator,
  installAsResponder,
  type Proposal,
  sameSelectors,
} from './exchange.ts';
import { shorter } from './messages.ts';
import type { PairConversation } from './pair-conversation.ts';
import { encodePair, nonceLength } from './pair-messages.ts';
import type { ShownChain } from './shown-chain.ts';

/** A pod that this node vouches for. */
export interface OwnPod {
  readonly uid: string;
  readonly spiffeId: SpiffeId;
  readonly shown: ShownChain;
}

/** Decides about the chain that the peer's node presents for its pod. @throws {HandshakeError} */
export type Verify = (shown: ShownChain) => PodPeer;

/**
 * Agrees on one pair's keys within a node session, as the side that began it.
 * @param hurry As in exchange.ts.
 * @throws {HandshakeError}
 */
export async function initiatePair(
  conversation: PairConversation,
  own: OwnPod,
  remoteUid: string,
  verify: Verify,
  proposal: Proposal,
  installer: Installer,
  hurry: boolean,
): Promise<Agreement> {
  const { spi, port, lifetime } = proposal;
  const selectors = proposal.selectors.map(({ local, remote }) => ({ initiator: local, responder: remote }));
  const svid = conversation.show(own.shown);
  const offer = encodePair({ spi, port, lifetime, selectors, svid }, drawNonce(), remoteUid);
  conversation.sendEncoded(offer);
  const answer = await conversation.receive('pair-answer');
  if (!sameSelectors(selectors, answer.selectors)) throw new HandshakeError('selectors');
  const peer = verify(conversation.shown(answer.svid));
  const agreement: Agreement = {
    initiator: true,
    ...conversation.proven(peer),
    selectors: proposal.selectors,
    spiIn: spi,
    spiOut: answer.spi,
    peerPort: answer.port,
    lifetime: shorter(lifetime, answer.lifetime),
  };
  const keys = conversation.derive(own, { spiffeId: peer.spiffeId, uid: peer.podUid }, offer, answer.encoded);
  await installAsInitiator(conversation, installer, agreement, keys, hurry);
  return agreement;
}

/** What the side that was asked makes of an offer. */
export interface PairDecision {
  readonly peer: PodPeer;
  readonly own: OwnPod;
  readonly proposal: Proposal;
}

/**
 * Agrees on one pair's keys within a node session, as the side that was asked.
 * @param decide Looks at whom the offer asks for, the chain it presents and its selectors, seen from this side; or throws why not.
 * @throws {HandshakeError}
 */
export async function respondPair(
  conversation: PairConversation,
  decide: (to: string, shown: ShownChain, selectors: readonly TrafficSelector[]) => PairDecision,
  installer: Installer,
): Promise<Agreement> {
  const offer = await conversation.receive('pair-offer');
  const selectors = offer.selectors.map(({ initiator, responder }) => ({ local: responder, remote: initiator }));
  checkFamilies(selectors);
  const { peer, own, proposal } = decide(offer.to, conversation.shown(offer.svid), selectors);
  const { spi, port } = proposal;
  const lifetime = shorter(proposal.lifetime, offer.lifetime);
  const svid = conversation.show(own.shown);
  const answer = encodePair({ spi, port, lifetime, selectors: offer.selectors, svid }, drawNonce());
  const agreement: Agreement = {
    initiator: false,
    ...conversation.proven(peer),
    selectors,
    spiIn: spi,
    spiOut: offer.spi,
    peerPort: offer.port,
    lifetime,
  };
  const keys = conversation.derive({ spiffeId: peer.spiffeId, uid: peer.podUid }, own, offer.encoded, answer);
  await installAsResponder(conversation, installer, agreement, keys, answer);
  return agreement;
}

let drawn = Buffer.alloc(0);

/** Nonces are no secrets, and are drawn many at a time: a call costs as much for one as for a hundred. */
function drawNonce(): Buffer {
  if (drawn.length < nonceLength) drawn = randomBytes(64 * nonceLength);
  const nonce = drawn.subarray(0, nonceLength);
  drawn = drawn.subarray(nonceLength);
  return nonce;
}
