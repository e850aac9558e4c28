import { nodeServerName } from '../identity/names.ts';
import type { NodePeer } from '../identity/verify.ts';
import type { Cancel } from './handshake/cancel.ts';
import type { TlsIdentity } from './handshake/credentials.ts';
import { HandshakeError } from './handshake/error.ts';
import type { SecureLink } from './handshake/link.ts';
import { NodeSession } from './handshake/node-session.ts';
import type { PairConversation } from './handshake/pair-conversation.ts';
import type { PeerVerifier } from './handshake/peer.ts';
import { nodeProtocol } from './handshake/tls-parameters.ts';
import type { TlsWork } from './handshake/work.ts';
import type { PeerNode } from './peers.ts';
import { type Leave, Slots } from './slots.ts';

export interface NodeSessionsOptions {
  readonly trustDomain: string;
  readonly handshakePort: number;
  readonly timeoutMs: number;
  /** A node session's: after this the next pair has a new handshake. */
  readonly lifetimeMs: number;
  readonly idleMs: number;
}

export interface NodeSessionsDeps {
  readonly work: TlsWork;
  readonly verifier: PeerVerifier;
  readonly nodeIdentity: () => TlsIdentity | undefined;
  /** Another node begins a pair. */
  readonly onPair: (conversation: PairConversation, session: NodeSession) => void;
}

/** Pairs that this node has under way with one other; a session takes four times as many from its peer. */
const mostBegun = 64;

interface Known {
  readonly sessions: Set<NodeSession>;
  readonly places: Slots;
  opening: Promise<NodeSession> | undefined;
}

/** The sessions that this node has with others, whichever side opened them: at most one handshake at a time for each node. */
export class NodeSessions {
  readonly #options: NodeSessionsOptions;
  readonly #deps: NodeSessionsDeps;
  readonly #nodes = new Map<string, Known>();
  readonly #abort = new AbortController();
  /** Handshakes of nodes that were done, by this node or by others. */
  handshakes = 0;

  constructor(options: NodeSessionsOptions, deps: NodeSessionsDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  get size(): number {
    return [...this.#nodes.values()].reduce((sum, { sessions }) => sum + sessions.size, 0);
  }

  /**
   * Begins the conversation of one pair with the node, over a session that stands or over a new one.
   * @returns The conversation, and a function to be called when the pair is done.
   * @throws {HandshakeError} What {@link dial} and PeerVerifier throw; `no-certificate`, `aborted`
   */
  async begin(node: PeerNode, cancel: Cancel): Promise<{ conversation: PairConversation; leave: Leave }> {
    const known = this.#known(node.name);
    const place = known.places.take(cancel);
    const leave = place instanceof Promise ? await place : place;
    try {
      const session = newestOpen(known) ?? (await this.#opening(node, known, cancel));
      return { conversation: session.begin(cancel), leave };
    } catch (error) {
      leave();
      throw error;
    }
  }

  /** Another node has opened a session, and its certificate is verified. Resolves when the session has ended. */
  async accept(link: SecureLink, peer: NodePeer): Promise<void> {
    const session = await this.#open(link, peer, 'server');
    await session.ended;
  }

  /** The next pair with the node has keys of a new handshake: what the sessions gave so far has carried what it may. */
  renew(node: string): void {
    for (const session of this.#nodes.get(node)?.sessions ?? []) session.retire();
  }

  /** Ends sessions with nodes that are not believed any more. */
  recheck(isBelieved: (session: NodeSession) => boolean): void {
    for (const { sessions } of this.#nodes.values())
      for (const session of [...sessions]) if (!isBelieved(session)) session.close(new HandshakeError('revoked'));
  }

  close(): void {
    this.#abort.abort(new HandshakeError('aborted'));
    for (const { sessions } of this.#nodes.values()) for (const session of [...sessions]) session.close();
  }

  #known(name: string): Known {
    const known = this.#nodes.get(name) ?? { sessions: new Set(), places: new Slots(mostBegun), opening: undefined };
    this.#nodes.set(name, known);
    return known;
  }

  /** One handshake for all who wait for it; who gives up waiting does not end it for the others. */
  async #opening(node: PeerNode, known: Known, cancel: Cancel): Promise<NodeSession> {
    known.opening ??= this.#dial(node).finally(() => {
      known.opening = undefined;
    });
    const { promise: given, reject } = Promise.withResolvers<never>();
    cancel.listen({ cancelled: reject });
    try {
      return await Promise.race([known.opening, given]);
    } finally {
      cancel.listen(undefined);
    }
  }

  async #dial(node: PeerNode): Promise<NodeSession> {
    const { trustDomain, handshakePort } = this.#options;
    const { work, verifier, nodeIdentity } = this.#deps;
    const identity = nodeIdentity();
    if (identity === undefined) throw new HandshakeError('no-certificate', 'this node has no certificate');
    const { address: host, handshakePort: port = handshakePort } = node;
    const destination = { host, port, serverName: nodeServerName(trustDomain), protocol: nodeProtocol };
    const link = await work.dial(destination, identity, this.#abort.signal, true);
    try {
      const peer = verifier.verify(link.facts, { kind: 'node', name: node.name }, nodeProtocol);
      return await this.#open(link, peer, 'client');
    } catch (error) {
      link.destroy();
      throw error;
    }
  }

  async #open(link: SecureLink, peer: NodePeer, role: 'client' | 'server'): Promise<NodeSession> {
    const { timeoutMs, lifetimeMs, idleMs } = this.#options;
    const known = this.#known(peer.node);
    const session = await NodeSession.open(
      link,
      peer,
      { role, timeoutMs, lifetimeMs, idleMs },
      {
        onPair: this.#deps.onPair,
        onClose: (ended) => known.sessions.delete(ended),
      },
    );
    known.sessions.add(session);
    this.handshakes++;
    if (this.#abort.signal.aborted) session.close();
    return session;
  }
}

function newestOpen({ sessions }: Known): NodeSession | undefined {
  let newest: NodeSession | undefined;
  for (const session of sessions) if (session.isOpen) newest = session;
  return newest;
}
