import type { TrafficSelector } from './driver.ts';
import { HandshakeError } from './handshake/error.ts';
import { type Agreement, type Installer, type Proposal, respond } from './handshake/exchange.ts';
import type { NodeSession, PairConversation } from './handshake/node-session.ts';
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
  const { channel, peer, cipher, abort } = session;
  await answer(deps, abort, async (admit, installer) => {
    const decide = (selectors: readonly TrafficSelector[]) =>
      admit(local, believedPeer(peer, local, selectors, deps.resolver), selectors);
    return await respond(channel, { peer, cipher }, decide, installer);
  });
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
  await answer(deps, conversation.abort, async (admit, installer) => {
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
      return { peer, own: ownPod(identity), proposal: admit(local, remote, selectors) };
    };
    return await respondPair(conversation, decide, installer);
  });
}

type Admit = (local: LocalPod, remote: RemotePod, selectors: readonly TrafficSelector[]) => Proposal;

/** Runs an exchange whose tunnel is known only once the offer has been read. */
async function answer(
  { table, services }: AnswerDeps,
  abort: AbortController,
  exchange: (admit: Admit, installer: Installer) => Promise<Agreement>,
): Promise<void> {
  let begun: { readonly tunnel: Tunnel; readonly attempt: number; readonly installer: Installer } | undefined;
  const installer = () => {
    if (begun === undefined) throw new HandshakeError('aborted');
    return begun.installer;
  };
  const admit: Admit = (local, remote, selectors) => {
    const tunnel = table.of(local, remote, services);
    const attempt = tunnel.admit(abort);
    begun = { tunnel, attempt, installer: tunnel.installer(attempt) };
    return tunnel.proposal(attempt, selectors);
  };
  try {
    const agreement = await exchange(admit, {
      installInbound: (agreement, keys) => installer().installInbound(agreement, keys),
      installOutbound: (agreement, keys) => installer().installOutbound(agreement, keys),
    });
    begun?.tunnel.finish(begun.attempt, agreement);
  } catch (cause) {
    begun?.tunnel.finish(begun.attempt, cause instanceof HandshakeError ? cause : new HandshakeError('internal'));
    throw cause;
  }
}
