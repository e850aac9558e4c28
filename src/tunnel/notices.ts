import type { Logger } from 'pino';
import { messageOf } from '../identity/certificate.ts';
import { nodeServerName } from '../identity/names.ts';
import { Channel } from './handshake/channel.ts';
import type { TlsIdentity } from './handshake/credentials.ts';
import { podDestination } from './handshake/dial.ts';
import { HandshakeError } from './handshake/error.ts';
import { mostSpis } from './handshake/messages.ts';
import type { PeerVerifier } from './handshake/peer.ts';
import type { NodeNotice } from './handshake/server.ts';
import type { TlsWork } from './handshake/work.ts';
import type { PeerNode } from './peers.ts';

export interface NoticeOptions {
  readonly trustDomain: string;
  readonly handshakePort: number;
  readonly timeoutMs: number;
  /** One connection to a node in this time. */
  readonly intervalMs: number;
}

export interface NoticeDeps {
  readonly work: TlsWork;
  readonly verifier: PeerVerifier;
  readonly nodeIdentity: () => TlsIdentity | undefined;
  readonly logger: Logger;
}

interface Pending {
  readonly node: PeerNode;
  readonly spis: Set<number>;
  timer: NodeJS.Timeout | undefined;
}

/**
 * Tells other nodes which of their keys this node has lost. A packet with an unknown SPI can come from anybody, so the
 * node is told only over TLS between the two nodes' certificates, many SPIs at a time, at a bounded rate; and it acts
 * only on SPIs that it really sends to this node with.
 */
export class NodeNotices {
  readonly #options: NoticeOptions;
  readonly #deps: NoticeDeps;
  readonly #pending = new Map<string, Pending>();
  readonly #abort = new AbortController();

  constructor(options: NoticeOptions, deps: NoticeDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  /** Says so before long, together with what else there is to say to that node. */
  unknownSpi(node: PeerNode, spi: number): void {
    const pending = this.#pending.get(node.name) ?? { node, spis: new Set<number>(), timer: undefined };
    this.#pending.set(node.name, pending);
    if (pending.spis.size >= mostSpis) return;
    pending.spis.add(spi);
    if (pending.timer !== undefined) return;
    void this.#send(pending);
    pending.timer = setTimeout(() => this.#again(pending), this.#options.intervalMs);
    pending.timer.unref();
  }

  close(): void {
    this.#abort.abort(new HandshakeError('aborted'));
    for (const { timer } of this.#pending.values()) clearTimeout(timer);
    this.#pending.clear();
  }

  #again(pending: Pending): void {
    pending.timer = undefined;
    if (pending.spis.size === 0) {
      this.#pending.delete(pending.node.name);
      return;
    }
    void this.#send(pending);
    pending.timer = setTimeout(() => this.#again(pending), this.#options.intervalMs);
    pending.timer.unref();
  }

  async #send({ node, spis }: Pending): Promise<void> {
    const { trustDomain, handshakePort, timeoutMs } = this.#options;
    const { work, verifier, nodeIdentity, logger } = this.#deps;
    const said = [...spis];
    spis.clear();
    let channel: Channel | undefined;
    try {
      const identity = nodeIdentity();
      if (identity === undefined) throw new HandshakeError('no-certificate', 'this node has no certificate');
      const { address, handshakePort: port = handshakePort } = node;
      const { signal } = this.#abort;
      const destination = podDestination(address, port, nodeServerName(trustDomain));
      const link = await work.dial(destination, identity, signal);
      channel = new Channel(link, timeoutMs, signal);
      verifier.verify(link.facts, { kind: 'node', name: node.name });
      channel.send({ type: 'unknown-spi', spis: said });
      await channel.receive('noted');
    } catch (cause) {
      if (this.#abort.signal.aborted) return;
      // The packets go on coming, and so will the next notice.
      logger.debug({ node: node.name, error: messageOf(cause) }, 'a node could not be told of lost keys');
    } finally {
      channel?.close();
    }
  }
}

/**
 * Hears another node's notice.
 * @param lost Called with the node, as its certificate proves it, and with SPIs that it says it does not know.
 */
export async function hearNotice(
  { channel, peer }: NodeNotice,
  lost: (node: string, spis: readonly number[]) => void,
): Promise<void> {
  const { message } = await channel.receive('unknown-spi');
  lost(peer.node, message.spis);
  channel.send({ type: 'noted' });
}
