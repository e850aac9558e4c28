import type { PodPeer } from '../../identity/verify.ts';
import type { Cancel, CancelListener } from './cancel.ts';
import type { Conversation } from './channel.ts';
import { HandshakeError } from './error.ts';
import type { Agreement } from './exchange.ts';
import type { SessionKeys } from './keys.ts';
import type { PairEnd } from './pair-keys.ts';
import { decodePair, encodedInstalled, encodeRefused, type PairMessage } from './pair-messages.ts';
import type { ShownChain } from './shown-chain.ts';

/** What the conversations of a node session have of it: one for all of them. */
export interface SessionVoice {
  readonly send: (id: number, message: string) => void;
  readonly show: (chain: ShownChain) => void;
  readonly shown: PairConversation['shown'];
  readonly derive: PairConversation['derive'];
  readonly proven: PairConversation['proven'];
  /** How many frames have come from the peer. */
  readonly heard: () => number;
  readonly done: (conversation: PairConversation, failure: HandshakeError | undefined) => void;
}

type MessageType = PairMessage['type'];
type MessageOf<Type extends MessageType> = Extract<PairMessage, { type: Type }>;

/** A peer that is ahead by more messages than this does not follow the protocol: each answers one. */
const mostPending = 2;

/** The conversation of one pod pair within a node session. */
export class PairConversation implements Conversation, CancelListener {
  readonly id: number;
  /** How many frames had come from the peer when it began. */
  readonly heard: number;
  /** Cancelling it ends the conversation. */
  readonly cancel: Cancel;
  readonly #voice: SessionVoice;
  #early: PairMessage[] | undefined;
  #failure: HandshakeError | undefined;
  /** What is awaited, since when, and by whom. */
  #due: MessageType | undefined;
  #since = 0;
  #resolve: ((message: PairMessage) => void) | undefined;
  #reject: ((error: HandshakeError) => void) | undefined;
  #done = false;

  /** @param cancel Of this side's attempt. */
  constructor(id: number, cancel: Cancel, voice: SessionVoice) {
    this.id = id;
    this.heard = voice.heard();
    this.cancel = cancel;
    this.#voice = voice;
    cancel.listen(this);
  }

  cancelled(reason: HandshakeError): void {
    this.fail(reason);
  }

  /** A frame of the peer's, of this conversation. */
  take(type: number, bytes: Buffer, start: number, end: number): void {
    let message: PairMessage;
    try {
      message = decodePair(type, bytes, start, end);
    } catch (cause) {
      this.fail(cause instanceof HandshakeError ? cause : new HandshakeError('internal', undefined, { cause }));
      return;
    }
    if (this.#due !== undefined) {
      this.#settle(message);
      return;
    }
    if (this.#early === undefined) this.#early = [];
    if (this.#early.length >= mostPending)
      this.fail(new HandshakeError('bad-message', 'more messages than were asked for'));
    else this.#early.push(message);
  }

  /** Nothing more will come. The first reason counts. */
  fail(error: HandshakeError): void {
    this.#failure ??= error;
    const reject = this.#reject;
    this.#await(undefined);
    reject?.(this.#failure);
  }

  /** Ends what has been awaited for too long. @param since What began to be awaited before, performance.now(). */
  expire(since: number, timeoutMs: number): void {
    if (this.#due !== undefined && this.#since < since)
      this.fail(new HandshakeError('timeout', `no "${this.#due}" within ${timeoutMs} ms`));
  }

  /** Keys of the pair, out of the session's secret. */
  derive(initiator: PairEnd, responder: PairEnd, offer: string, answer: string): SessionKeys {
    // An ended session's secret is zeros.
    if (this.#failure !== undefined) throw this.#failure;
    return this.#voice.derive(initiator, responder, offer, answer);
  }

  /** What an agreement says of how it was come to. The peer's proof ends with its node's. */
  proven(peer: PodPeer): Pick<Agreement, 'peer' | 'cipher' | 'group' | 'radius' | 'nodeSerial'> {
    return this.#voice.proven(peer);
  }

  /** Makes sure that the peer has seen the chain. @returns What names it from here on. */
  show(chain: ShownChain): string {
    this.#voice.show(chain);
    return chain.digest;
  }

  /** @returns A chain that the peer has shown. @throws {HandshakeError} `missing` */
  shown(digest: string): ShownChain {
    return this.#voice.shown(digest);
  }

  sendEncoded(message: string): void {
    if (this.#failure === undefined) this.#voice.send(this.id, message);
  }

  sendInstalled(): void {
    this.sendEncoded(encodedInstalled);
  }

  receiveInstalled(): Promise<unknown> {
    return this.receive('installed');
  }

  /** @throws {HandshakeError} `timeout`; the peer's refusal; what the conversation failed with. */
  receive<Type extends MessageType>(type: Type): Promise<MessageOf<Type>>;
  receive(type: MessageType): Promise<PairMessage> {
    return new Promise((resolve, reject) => {
      this.#await(type, resolve, reject);
      // What arrived before the connection broke counts.
      const isOver = this.#failure !== undefined && this.#failure.code !== 'disconnected';
      const early = isOver ? undefined : this.#early?.shift();
      if (early !== undefined) this.#settle(early);
      else if (this.#failure !== undefined) this.fail(this.#failure);
    });
  }

  refuse(error: HandshakeError): void {
    if (this.#done) return;
    if (error.by === 'us' && error.code !== 'disconnected') this.#voice.send(this.id, encodeRefused(error));
    this.#finish(error);
  }

  close(): void {
    this.#finish(undefined);
  }

  #await(
    due: MessageType | undefined,
    resolve?: (message: PairMessage) => void,
    reject?: (error: HandshakeError) => void,
  ): void {
    this.#due = due;
    this.#resolve = resolve;
    this.#reject = reject;
    if (due !== undefined) this.#since = performance.now();
  }

  #settle(message: PairMessage): void {
    const [due, resolve] = [this.#due, this.#resolve];
    if (message.type !== due) {
      this.fail(new HandshakeError('bad-message', `"${message.type}" where "${due}" was due`));
      return;
    }
    this.#await(undefined);
    resolve?.(message);
  }

  #finish(failure: HandshakeError | undefined): void {
    if (this.#done) return;
    this.#done = true;
    this.cancel.listen(undefined);
    this.#voice.done(this, failure);
  }
}
