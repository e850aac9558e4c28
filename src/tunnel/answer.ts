import { HandshakeError } from './handshake/error.ts';
import { respond } from './handshake/exchange.ts';
import type { PodSession } from './handshake/server.ts';
import { believedPeer, type LocalPod, type PeerResolver } from './peers.ts';
import type { TunnelTable } from './table.ts';
import type { Tunnel, TunnelServices } from './tunnel.ts';

/**
 * Answers a verified pod that asks for one of this node's: holds what it proved against what is believed, asks policy,
 * and hands the exchange to the pair's tunnel.
 * @throws {HandshakeError} Why not. Nothing of it is left then.
 */
export async function answerPod(
  session: PodSession,
  local: LocalPod,
  deps: { readonly resolver: PeerResolver; readonly table: TunnelTable; readonly services: TunnelServices },
): Promise<void> {
  const { channel, peer, cipher, abort } = session;
  const { resolver, table, services } = deps;
  let begun: { readonly tunnel: Tunnel; readonly attempt: number } | undefined;
  const installer = () => {
    if (begun === undefined) throw new HandshakeError('aborted');
    return begun.tunnel.installer(begun.attempt);
  };
  try {
    const agreement = await respond(
      channel,
      { peer, cipher },
      async (selectors) => {
        const remote = believedPeer(peer, local, selectors, resolver);
        const why = services.whyNot(local, remote);
        if (why !== undefined) throw new HandshakeError('policy', why);
        const tunnel = table.of(local, remote, services);
        begun = { tunnel, attempt: tunnel.admit(abort) };
        return tunnel.proposal(begun.attempt, selectors);
      },
      {
        installInbound: async (...args) => await installer().installInbound(...args),
        installOutbound: async (...args) => await installer().installOutbound(...args),
      },
    );
    begun?.tunnel.finish(begun.attempt, agreement);
  } catch (cause) {
    begun?.tunnel.finish(begun.attempt, cause instanceof HandshakeError ? cause : new HandshakeError('internal'));
    throw cause;
  }
}
