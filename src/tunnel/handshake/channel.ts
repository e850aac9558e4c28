import { HandshakeError } from './error.ts';
import { Inbox } from './inbox.ts';
import { LineReader } from './lines.ts';
import type { SecureLink } from './link.ts';
import { encodeMessage, type Message, type MessageOf, type MessageType } from './messages.ts';

/** What two agents end every exchange with, and how they end a conversation. */
export interface Conversation {
  /** Sends a message that was encoded before. */
  sendEncoded(message: string): void;
  sendInstalled(): void;
  /** @throws {HandshakeError} What reading a message throws; `timeout`; `disconnected`; `aborted`. */
  receiveInstalled(): Promise<unknown>;
  /** Says why it ends here, unless the peer said so first, and closes. */
  refuse(error: HandshakeError): void;
  /** Ends it, giving what was written a moment to leave. */
  close(): void;
}

/** The conversation of one pod pair over a TLS connection of its own. */
export class Channel implements Conversation {
  readonly link: SecureLink;
  readonly #reader = new LineReader();
  readonly #inbox: Inbox;

  /** @param timeoutMs For each message that is awaited. */
  constructor(link: SecureLink, timeoutMs: number, signal: AbortSignal) {
    this.link = link;
    this.#inbox = new Inbox(timeoutMs);
    const abort = () => {
      this.#inbox.fail(abortedBy(signal));
      link.destroy();
    };
    link.listen({
      data: (chunk) => {
        try {
          for (const line of this.#reader.push(chunk)) this.#inbox.push(line);
        } catch (error) {
          this.#inbox.fail(
            error instanceof HandshakeError ? error : new HandshakeError('bad-message', undefined, { cause: error }),
          );
        }
      },
      closed: (cause) => {
        signal.removeEventListener('abort', abort);
        this.#inbox.fail(
          cause === undefined
            ? new HandshakeError('disconnected')
            : new HandshakeError('disconnected', cause.message, { cause }),
        );
      },
    });
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
  }

  /** @returns The line as sent, without its line feed. */
  send(message: Message): string {
    const line = encodeMessage(message);
    this.sendEncoded(line);
    return line;
  }

  sendEncoded(line: string): void {
    if (this.#inbox.failure === undefined) this.link.write(`${line}\n`);
  }

  sendInstalled(): void {
    this.send({ type: 'installed' });
  }

  async receiveInstalled(): Promise<unknown> {
    return await this.receive('installed');
  }

  /** @throws {HandshakeError} What `decodeMessage` throws; `timeout`; `disconnected`; `aborted`. */
  async receive<Type extends MessageType>(type: Type): Promise<{ message: MessageOf<Type>; line: string }> {
    return await this.#inbox.receive(type);
  }

  refuse(error: HandshakeError): void {
    if (error.by === 'us' && error.code !== 'disconnected' && this.#inbox.failure?.code !== 'disconnected')
      this.link.write(`${encodeMessage(refusalOf(error))}\n`);
    this.close();
  }

  close(): void {
    this.link.end();
  }
}

/** An error of this side, as the peer is told it. */
function refusalOf(error: HandshakeError): Message {
  return { type: 'refused', code: error.code, detail: error.message.slice(0, 512) };
}

/** The reason that an attempt was given up with, as an error of the handshake. */
export function abortedBy(signal: AbortSignal): HandshakeError {
  const reason: unknown = signal.reason;
  return reason instanceof HandshakeError ? reason : new HandshakeError('aborted', undefined, { cause: reason });
}
