import type { NodePeer } from '../../identity/verify.ts';
import { Cancel } from './cancel.ts';
import { asHandshakeError, HandshakeError } from './error.ts';
import { FrameReader, FrameWriter, type TakeFrame } from './frames.ts';
import type { SecureLink } from './link.ts';
import { PairConversation, type SessionVoice } from './pair-conversation.ts';
import { nodeExporterLabel, PairKeySchedule, rootLength } from './pair-keys.ts';
import { decodeChain, decodeHello, encodeHello, encodeRefused, type Hello } from './pair-messages.ts';
import { ShownChains } from './shown-chain.ts';

export interface NodeSessionOptions {
  /** Who opened the TLS connection. */
  readonly role: 'client' | 'server';
  /** For each message that is awaited. */
  readonly timeoutMs: number;
  /** After this the session takes on no pair of this side's any more: the next one has a new handshake. */
  readonly lifetimeMs: number;
  /** Without a pair for this long it ends. */
  readonly idleMs: number;
}

export interface NodeSessionDeps {
  /** The peer begins a pair; to be answered, and closed, by whoever is told. */
  readonly onPair: (conversation: PairConversation, session: NodeSession) => void;
  readonly onClose: (session: NodeSession) => void;
}

const largestId = 2 ** 31 - 1;
/** Pairs of the peer's that are under way at once. Its own side begins fewer (`mostBegun`). */
const mostOfPeer = 256;
/** In the time that a message is awaited at most, those that wait are looked at so often. */
const looksPerTimeout = 8;

/**
 * What two nodes have agreed on by one TLS handshake of their own certificates: a connection that the pairs of their pods
 * talk over, and a secret that their keys are derived from. The secret never leaves this object and is zeroed when the
 * session ends; keys that came out of it live on by themselves.
 *
 * Conversation 0 is the session's own: greetings, and pods' chains, each before the first message that names it. The client
 * numbers those that it begins 1, 3, 5, …, the server 2, 4, 6, ….
 */
export class NodeSession {
  readonly peer: NodePeer;
  readonly #link: SecureLink;
  readonly #options: NodeSessionOptions;
  readonly #deps: NodeSessionDeps;
  readonly #hello = Promise.withResolvers<Hello>();
  readonly #chains = new ShownChains();
  readonly #conversations = new Map<number, PairConversation>();
  readonly #closed = Promise.withResolvers<void>();
  readonly #reader = new FrameReader();
  readonly #writer = new FrameWriter();
  readonly #onFrame: TakeFrame = (id, type, bytes, start, end) => this.#take(id, type, bytes, start, end);
  readonly #onTick = () => this.#read();
  /** Ticks come when no promise is left to be told. */
  readonly #readLater = () => process.nextTick(this.#onTick);
  #reading = false;
  #keys: PairKeySchedule | undefined;
  #group: string | undefined;
  #flushing: NodeJS.Immediate | undefined;
  #retirement: NodeJS.Timeout | undefined;
  #idling: NodeJS.Timeout | undefined;
  #looking: NodeJS.Timeout | undefined;
  #next: number;
  #lastOfPeer = 0;
  #received = 0;
  #greeted = false;
  #retired = false;
  #failure: HandshakeError | undefined;
  readonly #voice: SessionVoice = {
    send: (id, message) => this.#send(id, message),
    show: (chain) => {
      const introduction = this.#chains.introduce(chain);
      if (introduction !== undefined) this.#send(0, introduction);
    },
    shown: (digest) => this.#chains.find(digest),
    derive: (initiator, responder, offer, answer) => {
      if (this.#keys === undefined) throw new HandshakeError('disconnected');
      return this.#keys.derive(initiator, responder, offer, answer);
    },
    proven: (peer) => ({
      peer: peer.notAfter <= this.peer.notAfter ? peer : { ...peer, notAfter: this.peer.notAfter },
      cipher: this.#link.facts.cipher,
      group: this.#group,
      radius: 'node',
      nodeSerial: this.peer.serialNumber,
    }),
    heard: () => this.#received,
    done: ({ id, heard }, failure) => {
      this.#conversations.delete(id);
      // A node that has said nothing at all for so long is gone, and the connection with it.
      if (failure?.code === 'timeout' && this.#received === heard) this.close(new HandshakeError('disconnected'));
      else if (this.#conversations.size === 0) this.#rest();
    },
  };

  private constructor(link: SecureLink, peer: NodePeer, options: NodeSessionOptions, deps: NodeSessionDeps) {
    this.#link = link;
    this.peer = peer;
    this.#options = options;
    this.#deps = deps;
    this.#next = options.role === 'client' ? 1 : 2;
    link.listen({
      data: (chunk) => {
        this.#reader.push(chunk);
        this.#readSoon();
      },
      closed: () => this.close(new HandshakeError('disconnected')),
    });
  }

  /**
   * Begins a session over a link whose peer has been verified.
   * @throws {HandshakeError} `version`, `bad-message`, `timeout`, `disconnected`
   */
  static async open(
    link: SecureLink,
    peer: NodePeer,
    options: NodeSessionOptions,
    deps: NodeSessionDeps,
  ): Promise<NodeSession> {
    const session = new NodeSession(link, peer, options, deps);
    try {
      await session.#greet();
    } catch (error) {
      session.close(asHandshakeError(error));
      throw error;
    }
    return session;
  }

  /** Whether a pair may be begun on it. */
  get isOpen(): boolean {
    return !this.#retired && this.#failure === undefined && !this.#chains.isFull;
  }

  /** Resolves when the session has ended and its secret is gone. */
  get ended(): Promise<void> {
    return this.#closed.promise;
  }

  /** Begins the conversation of one pair. @throws {HandshakeError} Why the session has ended. */
  begin(cancel: Cancel): PairConversation {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#retired || this.#next > largestId) throw new HandshakeError('disconnected', 'the node session is over');
    const id = this.#next;
    this.#next += 2;
    return this.#converse(id, cancel);
  }

  /** Takes on no new pairs of this side's, and ends when those that are under way are done. */
  retire(): void {
    this.#retired = true;
    if (this.#conversations.size === 0) this.close();
  }

  /** Ends the session and every conversation in it. What was said before is sent. */
  close(cause: HandshakeError = new HandshakeError('aborted', 'the node session has ended')): void {
    if (this.#failure !== undefined) return;
    this.#failure = cause;
    clearTimeout(this.#retirement);
    clearTimeout(this.#idling);
    clearInterval(this.#looking);
    this.#hello.reject(cause);
    for (const conversation of [...this.#conversations.values()]) conversation.fail(cause);
    this.#flush();
    this.#keys?.wipe();
    this.#keys = undefined;
    this.#link.end();
    this.#closed.resolve();
    this.#deps.onClose(this);
  }

  async #greet(): Promise<void> {
    const { role, lifetimeMs, timeoutMs } = this.#options;
    const { group } = this.#link.facts;
    // Awaited below; the peer may be gone before.
    this.#hello.promise.catch(() => {});
    const root = await this.#link.exportKeyingMaterial(rootLength, nodeExporterLabel, Buffer.alloc(0));
    // Ended meanwhile: nobody would zero it.
    if (this.#failure === undefined) this.#keys = new PairKeySchedule(root);
    root.fill(0);
    this.#send(0, encodeHello(role === 'client' ? group : undefined));
    const late = new HandshakeError('timeout', `no "hello" within ${timeoutMs} ms`);
    const deadline = setTimeout(() => this.#hello.reject(late), timeoutMs);
    const hello = await this.#hello.promise.finally(() => clearTimeout(deadline));
    if (this.#failure !== undefined) throw this.#failure;
    this.#group = role === 'client' ? group : hello.group;
    this.#retirement = setTimeout(() => this.retire(), Math.min(lifetimeMs, largestId));
    this.#retirement.unref();
    this.#rest();
  }

  /**
   * One frame at a time: the next when all that can be done at once about this one is done, and its garbage is garbage. All
   * of a chunk in step with one another would be alive together, and outlive what the heap has for the young.
   */
  #read(): void {
    try {
      this.#reading = this.#failure === undefined && this.#reader.next(this.#onFrame);
    } catch (error) {
      this.#reading = false;
      this.close(asHandshakeError(error));
    }
    if (this.#reading) queueMicrotask(this.#readLater);
  }

  #readSoon(): void {
    if (this.#reading) return;
    this.#reading = true;
    this.#readLater();
  }

  #take(id: number, type: number, bytes: Buffer, start: number, end: number): void {
    if (this.#failure !== undefined) return;
    this.#received++;
    if (id > largestId) throw new HandshakeError('bad-message', 'a number that no conversation has');
    if (id === 0) {
      if (this.#greeted) this.#chains.take(decodeChain(type, bytes, start, end).presented);
      else this.#hello.resolve(decodeHello(type, bytes, start, end));
      this.#greeted = true;
      return;
    }
    const known = this.#conversations.get(id);
    if (known !== undefined) {
      known.take(type, bytes, start, end);
      return;
    }
    const isPeers = id % 2 === (this.#options.role === 'client' ? 0 : 1);
    // What arrives for a conversation that is over is late, and nothing else.
    if (!isPeers || id <= this.#lastOfPeer) return;
    this.#lastOfPeer = id;
    if (this.#conversations.size >= mostOfPeer) {
      this.#send(id, encodeRefused(new HandshakeError('too-many')));
      return;
    }
    const conversation = this.#converse(id, new Cancel());
    conversation.take(type, bytes, start, end);
    this.#deps.onPair(conversation, this);
  }

  #converse(id: number, cancel: Cancel): PairConversation {
    if (this.#conversations.size === 0) this.#stir();
    const conversation = new PairConversation(id, cancel, this.#voice);
    this.#conversations.set(id, conversation);
    return conversation;
  }

  /** Something is under way. One timer looks after all that is awaited: thousands of timers cost more than what they guard. */
  #stir(): void {
    clearTimeout(this.#idling);
    this.#idling = undefined;
    const { timeoutMs } = this.#options;
    this.#looking ??= setInterval(
      () => {
        const since = performance.now() - timeoutMs;
        for (const conversation of [...this.#conversations.values()]) conversation.expire(since, timeoutMs);
      },
      Math.max(1, timeoutMs / looksPerTimeout),
    );
  }

  /** Nothing is under way. */
  #rest(): void {
    if (this.#failure !== undefined) return;
    if (this.#retired) {
      this.close();
      return;
    }
    clearInterval(this.#looking);
    this.#looking = undefined;
    clearTimeout(this.#idling);
    this.#idling = setTimeout(() => this.close(), this.#options.idleMs);
    this.#idling.unref();
  }

  /** What is said in one turn of the event loop is one write: a thousand pairs cost a few records. */
  #send(id: number, message: string): void {
    if (this.#failure !== undefined) return;
    this.#writer.add(id, message);
    this.#flushing ??= setImmediate(() => this.#flush());
  }

  #flush(): void {
    clearImmediate(this.#flushing);
    this.#flushing = undefined;
    const bytes = this.#writer.take();
    if (bytes !== undefined) this.#link.write(bytes);
  }
}
