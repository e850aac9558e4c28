import type { Server, Socket } from 'node:net';
import { resetSocket } from '../kernel/tcp-socket.ts';
import { Connection, type Origin, type Shared } from './connection.ts';
import { Opening } from './opening.ts';
import type { PeerClass } from './policy.ts';

/** Why a connection is reset before anything of it is read; counted, and shown with the drop reasons. */
type Refusal = 'PROXY_FULL' | 'PROXY_CLIENT_FULL' | 'PROXY_UNPROVEN' | 'PROXY_NO_POLICY' | 'PROXY_UNKNOWN';

/**
 * Takes connections in, each with who is at its ends, and lets none speak before policy knows it: without a policy, or
 * with one older than what the datapath decided by, they wait a little for the next, unread.
 */
export class Intake {
  readonly #shared: Shared;
  readonly #originOf: (socket: Socket) => Origin | undefined;
  /** With whom the end that is not here is. */
  readonly #connections = new Map<Connection, PeerClass>();
  readonly #byClient = new Map<string, number>();
  /** With what each is tried again by. */
  readonly #waiting = new Map<Socket, () => boolean>();
  readonly #listeners: Server[] = [];
  #onEmpty: (() => void) | undefined;

  constructor(shared: Shared, originOf: (socket: Socket) => Origin | undefined) {
    this.#shared = shared;
    this.#originOf = originOf;
    shared.policy.onChange(() => this.#policyChanged());
  }

  /** @param server Makes sockets that are paused and may be half open. */
  listen(server: Server): void {
    this.#listeners.push(server);
    server.on('connection', (socket) => this.#accept(socket));
    server.on('error', (error) => {
      if (!server.listening) throw error;
      // The machine is short of something (ENFILE, ENOMEM): the connection waits in the kernel, or is lost.
      this.#shared.counts.refuse('PROXY_ACCEPT');
    });
  }

  /**
   * Ends all: those on which nothing runs at once, the others as soon as they can, and what is left after so long by a
   * reset. What the kernel has accepted in the meantime still comes in for a moment: a successor has the listening
   * sockets' place already.
   * @returns When there is nothing left.
   */
  async drain(graceMs: number): Promise<void> {
    const { counts, limits } = this.#shared;
    counts.draining = true;
    for (const connection of [...this.#connections.keys()]) connection.drain();
    const empty = Promise.withResolvers<void>();
    const settle = setTimeout(
      () => {
        for (const server of this.#listeners) server.close();
        for (const connection of [...this.#connections.keys()]) connection.drain();
        this.#onEmpty = empty.resolve;
        this.#checkEmpty();
      },
      Math.min(graceMs, limits.settleMs),
    );
    const end = setTimeout(() => {
      for (const connection of [...this.#connections.keys()]) connection.reset();
      for (const socket of [...this.#waiting.keys()]) resetSocket(socket);
    }, graceMs);
    await empty.promise;
    clearTimeout(settle);
    clearTimeout(end);
  }

  #accept(socket: Socket): void {
    const { counts, limits } = this.#shared;
    counts.accepted++;
    // Until it is a connection with an owner: a peer that resets it is no error of ours.
    socket.on('error', () => {});
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 60_000);
    const origin = this.#originOf(socket);
    if (origin === undefined) {
      this.#refuse(socket, 'PROXY_UNPROVEN');
      return;
    }
    if (counts.connections >= limits.connections) this.#refuse(socket, 'PROXY_FULL');
    else if ((this.#byClient.get(origin.client) ?? 0) >= limits.connectionsOfClient)
      this.#refuse(socket, 'PROXY_CLIENT_FULL');
    else {
      this.#count(origin, 1);
      if (!this.#begin(socket, origin)) this.#wait(socket, origin);
    }
  }

  #refuse(socket: Socket, reason: Refusal): void {
    this.#shared.counts.refuse(reason);
    resetSocket(socket);
  }

  /** @returns Whether policy knows it. */
  #begin(socket: Socket, origin: Origin): boolean {
    const { policy } = this.#shared;
    const peer = policy.classOf(origin);
    const judge = peer === undefined ? undefined : policy.judgeFor(origin, peer);
    if (peer === undefined || judge?.known !== true) return false;
    const connection = new Connection(socket, origin, judge, this.#shared, () => {
      this.#connections.delete(connection);
      this.#count(origin, -1);
      this.#checkEmpty();
    });
    this.#connections.set(connection, peer);
    new Opening(connection);
    return true;
  }

  #wait(socket: Socket, origin: Origin): void {
    const { policy, limits } = this.#shared;
    const none = policy.revision === 0;
    const forget = () => {
      clearTimeout(timer);
      this.#waiting.delete(socket);
      socket.off('close', closed);
    };
    const closed = () => {
      forget();
      this.#count(origin, -1);
      this.#checkEmpty();
    };
    const timer = setTimeout(
      () => this.#refuse(socket, policy.revision === 0 ? 'PROXY_NO_POLICY' : 'PROXY_UNKNOWN'),
      none ? limits.waitMs : limits.knownMs,
    );
    socket.once('close', closed);
    this.#waiting.set(socket, () => {
      if (!this.#begin(socket, origin)) return false;
      forget();
      return true;
    });
    if (this.#waiting.size > limits.waiting) this.#refuse(socket, none ? 'PROXY_NO_POLICY' : 'PROXY_UNKNOWN');
  }

  #policyChanged(): void {
    for (const [connection, peer] of [...this.#connections])
      connection.policyChanged(this.#shared.policy.judgeFor(connection.origin, peer));
    for (const begin of [...this.#waiting.values()]) begin();
  }

  #count({ client }: Origin, by: number): void {
    this.#shared.counts.connections += by;
    const now = (this.#byClient.get(client) ?? 0) + by;
    if (now === 0) this.#byClient.delete(client);
    else this.#byClient.set(client, now);
  }

  #checkEmpty(): void {
    if (this.#connections.size === 0 && this.#waiting.size === 0) this.#onEmpty?.();
  }
}
