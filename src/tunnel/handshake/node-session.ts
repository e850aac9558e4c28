import type { NodePeer, PodPeer } from '../../identity/verify.ts';
import { abortedBy, type Conversation, refusalOf } from './channel.ts';
import { HandshakeError } from './error.ts';
import type { Agreement } from './exchange.ts';
import { Inbox } from './inbox.ts';
import type { SessionKeys } from './keys.ts';
import { LineReader } from './lines.ts';
import type { SecureLink } from './link.ts';
import {
  decodeMessage,
  encodeMessage,
  type Message,
  type MessageOf,
  type MessageType,
  protocolVersion,
} from './messages.ts';
import { derivePairKeys, nodeExporterLabel, type PairEnd, rootLength } from './pair-keys.ts';
import { type ShownChain, ShownChains } from './shown-chain.ts';

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

/** Two chains, and what else a message holds, fit well. */
const longestFrame = 65_536;
const largestId = 2 ** 31 - 1;
/** Pairs of the peer's that are under way at once. Its own side begins fewer (`mostBegun`). */
const mostOfPeer = 256;

/**
 * What two nodes have agreed on by one TLS handshake of their own certificates: a connection that the pairs of their pods
 * talk over, and a secret that their keys are derived from. The secret never leaves this object and is zeroed when the
 * session ends; keys that came out of it live on by themselves.
 *
 * A line is `<conversation> <message>`. Conversation 0 is the session's own: greetings, and pods' chains, each before the
 * first message that names it. The client numbers those that it begins 1, 3, 5, …, the server 2, 4, 6, ….
 */
export class NodeSession {
  readonly peer: NodePeer;
  readonly #link: SecureLink;
  readonly #options: NodeSessionOptions;
  readonly #deps: NodeSessionDeps;
  readonly #greeting: Inbox;
  readonly #chains = new ShownChains();
  readonly #conversations = new Map<number, PairConversation>();
  readonly #closed = Promise.withResolvers<void>();
  #root: Buffer = Buffer.alloc(0);
  #group: string | undefined;
  #pending: string[] = [];
  #flushing: NodeJS.Immediate | undefined;
  #retirement: NodeJS.Timeout | undefined;
  #idling: NodeJS.Timeout | undefined;
  #next: number;
  #lastOfPeer = 0;
  #received = 0;
  #greeted = false;
  #retired = false;
  #failure: HandshakeError | undefined;
  /** What conversations have of the session: one for all of them. */
  readonly #voice: SessionVoice = {
    send: (id, line) => this.#send(id, line),
    show: (chain) => {
      const introduction = this.#chains.introduce(chain);
      if (introduction !== undefined) this.#send(0, encodeMessage(introduction));
    },
    shown: (digest) => this.#chains.find(digest),
    derive: (ends, offer, answer) => derivePairKeys(this.#root, ends, offer, answer),
    proven: (peer) => ({
      peer: peer.notAfter <= this.peer.notAfter ? peer : { ...peer, notAfter: this.peer.notAfter },
      cipher: this.#link.facts.cipher,
      group: this.#group,
      radius: 'node',
      nodeSerial: this.peer.serialNumber,
    }),
    done: (id, heard, failure) => {
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
    this.#greeting = new Inbox(options.timeoutMs);
    this.#next = options.role === 'client' ? 1 : 2;
    const reader = new LineReader(longestFrame);
    link.listen({
      data: (chunk) => {
        try {
          for (const line of reader.push(chunk)) this.#take(line);
        } catch (error) {
          this.close(
            error instanceof HandshakeError ? error : new HandshakeError('internal', undefined, { cause: error }),
          );
        }
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
      session.close(
        error instanceof HandshakeError ? error : new HandshakeError('internal', undefined, { cause: error }),
      );
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
  begin(signal: AbortSignal): PairConversation {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#retired || this.#next > largestId) throw new HandshakeError('disconnected', 'the node session is over');
    const id = this.#next;
    this.#next += 2;
    return this.#converse(id, signal);
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
    this.#greeting.fail(cause);
    for (const conversation of this.#conversations.values()) conversation.fail(cause);
    this.#flush();
    this.#root.fill(0);
    this.#link.end();
    this.#closed.resolve();
    this.#deps.onClose(this);
  }

  async #greet(): Promise<void> {
    const { role, lifetimeMs } = this.#options;
    const { group } = this.#link.facts;
    const root = await this.#link.exportKeyingMaterial(rootLength, nodeExporterLabel, Buffer.alloc(0));
    // Ended meanwhile: nobody would zero it.
    if (this.#failure !== undefined) root.fill(0);
    else this.#root = root;
    const hello: Message = {
      type: 'hello',
      version: protocolVersion,
      ...(role === 'client' && group !== undefined ? { group } : {}),
    };
    this.#send(0, encodeMessage(hello));
    const { message } = await this.#greeting.receive('hello');
    if (this.#failure !== undefined) throw this.#failure;
    this.#group = role === 'client' ? group : message.group;
    this.#retirement = setTimeout(() => this.retire(), Math.min(lifetimeMs, largestId));
    this.#retirement.unref();
    this.#rest();
  }

  #take(line: string): void {
    if (this.#failure !== undefined) return;
    this.#received++;
    const space = line.indexOf(' ');
    const number = line.slice(0, space);
    const id = Number(number);
    // In the one form that a number has: neither signs nor exponents nor leading zeros.
    if (!Number.isInteger(id) || id < 0 || id > largestId || String(id) !== number)
      throw new HandshakeError('bad-message', 'a line that begins with no conversation');
    const rest = line.slice(space + 1);
    if (id === 0) {
      if (this.#greeted) this.#chains.take(decodeMessage('chain', rest).svid);
      else this.#greeting.push(rest);
      this.#greeted = true;
      return;
    }
    const known = this.#conversations.get(id);
    if (known !== undefined) {
      known.take(rest);
      return;
    }
    const isPeers = id % 2 === (this.#options.role === 'client' ? 0 : 1);
    // What arrives for a conversation that is over is late, and nothing else.
    if (!isPeers || id <= this.#lastOfPeer) return;
    this.#lastOfPeer = id;
    if (this.#conversations.size >= mostOfPeer) {
      this.#send(id, encodeMessage(refusalOf(new HandshakeError('too-many'))));
      return;
    }
    const conversation = this.#converse(id, undefined);
    conversation.take(rest);
    this.#deps.onPair(conversation, this);
  }

  #converse(id: number, signal: AbortSignal | undefined): PairConversation {
    this.#stir();
    const conversation = new PairConversation(id, this.#received, this.#options.timeoutMs, signal, this.#voice);
    this.#conversations.set(id, conversation);
    return conversation;
  }

  #stir(): void {
    clearTimeout(this.#idling);
    this.#idling = undefined;
  }

  /** Nothing is under way. */
  #rest(): void {
    if (this.#failure !== undefined) return;
    if (this.#retired) {
      this.close();
      return;
    }
    this.#stir();
    this.#idling = setTimeout(() => this.close(), this.#options.idleMs);
    this.#idling.unref();
  }

  /** What is said in one turn of the event loop is one write: a thousand pairs cost a few records. */
  #send(id: number, line: string): void {
    if (this.#failure !== undefined) return;
    this.#pending.push(`${id} ${line}\n`);
    this.#flushing ??= setImmediate(() => this.#flush());
  }

  #flush(): void {
    clearImmediate(this.#flushing);
    this.#flushing = undefined;
    if (this.#pending.length === 0) return;
    this.#link.write(this.#pending.join(''));
    this.#pending = [];
  }
}

interface SessionVoice {
  readonly send: (id: number, line: string) => void;
  readonly show: (chain: ShownChain) => void;
  readonly shown: PairConversation['shown'];
  readonly derive: PairConversation['derive'];
  readonly proven: PairConversation['proven'];
  /** @param heard How many lines had come from the peer when the conversation began. */
  readonly done: (id: number, heard: number, failure: HandshakeError | undefined) => void;
}

const once = { once: true };

/** The conversation of one pod pair within a node session. */
export class PairConversation implements Conversation {
  readonly #id: number;
  readonly #heard: number;
  readonly #inbox: Inbox;
  readonly #deps: SessionVoice;
  #abort: AbortController | undefined;
  readonly #signal: AbortSignal | undefined;
  #done = false;

  constructor(id: number, heard: number, timeoutMs: number, signal: AbortSignal | undefined, deps: SessionVoice) {
    this.#id = id;
    this.#heard = heard;
    this.#inbox = new Inbox(timeoutMs);
    this.#deps = deps;
    this.#signal = signal;
    if (signal?.aborted === true) this.handleEvent();
    else signal?.addEventListener('abort', this, once);
  }

  /** As the signal's listener. */
  handleEvent(): void {
    if (this.#signal !== undefined) this.fail(abortedBy(this.#signal));
  }

  /** Aborting it ends the conversation. */
  get abort(): AbortController {
    if (this.#abort === undefined) {
      const abort = new AbortController();
      abort.signal.addEventListener('abort', () => this.fail(abortedBy(abort.signal)), { once: true });
      this.#abort = abort;
    }
    return this.#abort;
  }

  take(line: string): void {
    this.#inbox.push(line);
  }

  fail(error: HandshakeError): void {
    this.#inbox.fail(error);
  }

  /** Keys of the pair, out of the session's secret. */
  derive(
    ends: { readonly initiator: PairEnd; readonly responder: PairEnd },
    offer: string,
    answer: string,
  ): SessionKeys {
    const { failure } = this.#inbox;
    // An ended session's secret is zeros.
    if (failure !== undefined) throw failure;
    return this.#deps.derive(ends, offer, answer);
  }

  /** What an agreement says of how it was come to. The peer's proof ends with its node's. */
  proven(peer: PodPeer): Pick<Agreement, 'peer' | 'cipher' | 'group' | 'radius' | 'nodeSerial'> {
    return this.#deps.proven(peer);
  }

  /** Makes sure that the peer has seen the chain. @returns What names it from here on. */
  show(chain: ShownChain): string {
    this.#deps.show(chain);
    return chain.digest;
  }

  /** @returns A chain that the peer has shown. @throws {HandshakeError} `missing` */
  shown(digest: string): ShownChain {
    return this.#deps.shown(digest);
  }

  send(message: Message): string {
    return this.sendLine(encodeMessage(message));
  }

  sendLine(line: string): string {
    if (this.#inbox.failure === undefined) this.#deps.send(this.#id, line);
    return line;
  }

  receive<Type extends MessageType>(type: Type): Promise<{ message: MessageOf<Type>; line: string }> {
    return this.#inbox.receive(type);
  }

  refuse(error: HandshakeError): void {
    if (this.#done) return;
    if (error.by === 'us' && error.code !== 'disconnected') this.#deps.send(this.#id, encodeMessage(refusalOf(error)));
    this.#finish(error);
  }

  close(): void {
    this.#finish(undefined);
  }

  #finish(failure: HandshakeError | undefined): void {
    if (this.#done) return;
    this.#done = true;
    this.#signal?.removeEventListener('abort', this);
    this.#deps.done(this.#id, this.#heard, failure);
  }
}
