import { HandshakeError } from './error.ts';
import { decodeMessage, type MessageOf, type MessageType } from './messages.ts';

/** A peer that is ahead by more lines than this does not follow the protocol: each message answers one. */
const mostPending = 2;

/** Lines of one conversation that have arrived and are awaited one at a time, none of them for ever. */
export class Inbox {
  readonly #lines: string[] = [];
  readonly #timeoutMs: number;
  #failure: HandshakeError | undefined;
  #wake: (() => void) | undefined;

  /** @param timeoutMs For each message that is awaited. */
  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  /** Why nothing more will come. */
  get failure(): HandshakeError | undefined {
    return this.#failure;
  }

  push(line: string): void {
    if (this.#lines.length >= mostPending)
      this.fail(new HandshakeError('bad-message', 'more lines than were asked for'));
    else this.#lines.push(line);
    this.#wake?.();
  }

  fail(error: HandshakeError): void {
    this.#failure ??= error;
    this.#wake?.();
  }

  /** @throws {HandshakeError} What {@link decodeMessage} throws; `timeout`; what the conversation failed with. */
  async receive<Type extends MessageType>(type: Type): Promise<{ message: MessageOf<Type>; line: string }> {
    const line = this.#next() ?? (await this.#arrival(type));
    return { message: decodeMessage(type, line), line };
  }

  /** What has arrived already. @throws {HandshakeError} What the conversation failed with. */
  #next(): string | undefined {
    // A refusal that arrived before the connection broke says more than that it broke.
    const line = this.#failure === undefined || this.#failure.code === 'disconnected' ? this.#lines.shift() : undefined;
    if (line === undefined && this.#failure !== undefined) throw this.#failure;
    return line;
  }

  /** The next line, when it comes. */
  #arrival(due: MessageType): Promise<string> {
    return new Promise((resolve, reject) => {
      const deadline = setTimeout(
        () => this.fail(new HandshakeError('timeout', `no "${due}" within ${this.#timeoutMs} ms`)),
        this.#timeoutMs,
      );
      this.#wake = () => {
        this.#wake = undefined;
        clearTimeout(deadline);
        try {
          resolve(this.#next() ?? '');
        } catch (error) {
          reject(error);
        }
      };
    });
  }
}
