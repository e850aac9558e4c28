import type { TrafficSelector } from './driver.ts';
import type { Cancel } from './handshake/cancel.ts';
import { HandshakeError } from './handshake/error.ts';
import { type Agreement, type Installer, type Proposal, respond } from './handshake/exchange.ts';
import type { DirectionKeys } from './handshake/keys.ts';
import type { NodeSession } from './handshake/node-session.ts';
import type { PairConversation } from './handshake/pair-conversation.ts';
import { respondPair } from './handshake/pair-exchange.ts';
import type { PodSession } from './handshake/server.ts';
import type { ShownChain } from './handshake/shown-chain.ts';
import { ownPod } from './opening.ts';
import { believedPeer, type LocalPod, type PeerResolver, type RemotePod } from './peers.ts';
import type { TunnelServices } from './services.ts';
import type { TunnelTable } from './table.ts';
import type { Tunnel } from './tunnel.ts';

export interface AnswerDeps {
  readonly resolver: PeerResolver;
  readonly table: TunnelTable;
  readonly services: TunnelServices;
}

/**
 * Answers a verified pod that asks for one of this node's: holds what it proved against what is believed, asks policy,
 * and hands the exchange to the pair's tunnel.
 * @throws {HandshakeError} Why not. Nothing of it is left then.
 */
export async function answerPod(session: PodSession, local: LocalPod, deps: AnswerDeps): Promise<void> {
  const { channel, peer, cipher, cancel } = session;
  const answering = new Answering(deps, cancel);
  const decide = (selectors: readonly TrafficSelector[]) =>
    answering.admit(local, believedPeer(peer, local, selectors, deps.resolver), selectors);
  try {
    answering.finish(await respond(channel, { peer, cipher }, decide, answering));
  } catch (cause) {
    throw answering.fail(cause);
  }
}

/**
 * Answers another node that asks for a pair of pods within a session of the two nodes. What the pair's own handshake would
 * have proven rests on the node's word here, so it is held against what is believed once more: the pod must be on that
 * very node, and both pods' namespaces must have asked for this.
 * @throws {HandshakeError} Why not. Nothing of it is left then.
 */
export async function answerPair(
  conversation: PairConversation,
  session: NodeSession,
  localOf: (uid: string) => LocalPod | undefined,
  deps: AnswerDeps,
): Promise<void> {
  const { verifier, radius, svid } = deps.services;
  const answering = new Answering(deps, conversation.cancel);
  const decide = (to: string, shown: ShownChain, selectors: readonly TrafficSelector[]) => {
    const local = localOf(to);
    if (local === undefined) throw new HandshakeError('unknown-endpoint');
    const identity = svid(to);
    if (identity === undefined) throw new HandshakeError('no-certificate');
    const peer = verifier.vouched(shown, { kind: 'pod' });
    const remote = believedPeer(peer, local, selectors, deps.resolver);
    if (remote.node.name !== session.peer.node)
      throw new HandshakeError(
        'wrong-node',
        `pod ${peer.podUid} is known on node ${remote.node.name}, not on ${session.peer.node}`,
      );
    if (radius(local, remote) !== 'node') throw new HandshakeError('radius');
    return { peer, own: ownPod(identity), proposal: answering.admit(local, remote, selectors) };
  };
  try {
    answering.finish(await respondPair(conversation, decide, answering));
  } catch (cause) {
    throw answering.fail(cause);
  }
}

/** An exchange whose tunnel is known only once the offer has been read. */
class Answering implements Installer {
  readonly #deps: AnswerDeps;
  readonly #cancel: Cancel;
  #tunnel: Tunnel | undefined;
  #attempt = 0;
  #installer: Installer | undefined;

  constructor(deps: AnswerDeps, cancel: Cancel) {
    this.#deps = deps;
    this.#cancel = cancel;
  }

  /** @returns What this side brings into the exchange. @throws {HandshakeError} `yield` */
  admit(local: LocalPod, remote: RemotePod, selectors: readonly TrafficSelector[]): Proposal {
    const { table, services } = this.#deps;
    const tunnel = table.of(local, remote, services);
    this.#attempt = tunnel.admit(this.#cancel);
    this.#tunnel = tunnel;
    this.#installer = tunnel.installer(this.#attempt);
    return tunnel.proposal(this.#attempt, selectors);
  }

  installInbound(agreement: Agreement, keys: DirectionKeys): Promise<void> {
    return this.#keys().installInbound(agreement, keys);
  }

  installOutbound(agreement: Agreement, keys: DirectionKeys): Promise<void> {
    return this.#keys().installOutbound(agreement, keys);
  }

  finish(agreement: Agreement): void {
    this.#tunnel?.finish(this.#attempt, agreement);
  }

  /** @returns The cause. */
  fail(cause: unknown): unknown {
    this.#tunnel?.finish(this.#attempt, cause instanceof HandshakeError ? cause : new HandshakeError('internal'));
    return cause;
  }

  #keys(): Installer {
    if (this.#installer === undefined) throw new HandshakeError('aborted');
    return this.#installer;
  }
}
