import type { TLSSocket } from 'node:tls';
import { HandshakeError } from './error.ts';
import { LineReader } from './lines.ts';
import { decodeMessage, encodeMessage, type Message, type MessageOf, type MessageType } from './messages.ts';

/** Messages over a TLS socket whose handshake is done, one at a time, none awaited for ever. */
export class Channel {
  readonly socket: TLSSocket;
  readonly #reader = new LineReader();
  readonly #timeoutMs: number;
  #failure: HandshakeError | undefined;
  #wake: (() => void) | undefined;

  /** @param timeoutMs For each message that is awaited. */
  constructor(socket: TLSSocket, timeoutMs: number, signal: AbortSignal) {
    this.socket = socket;
    this.#timeoutMs = timeoutMs;
    socket.on('data', (chunk: Buffer) => {
      try {
        this.#reader.push(chunk);
        this.#wake?.();
      } catch (error) {
        this.#fail(
          error instanceof HandshakeError ? error : new HandshakeError('bad-message', undefined, { cause: error }),
        );
      }
    });
    socket.on('error', (cause) => this.#fail(new HandshakeError('disconnected', cause.message, { cause })));
    socket.on('close', () => this.#fail(new HandshakeError('disconnected')));
    const abort = () => {
      this.#fail(abortedBy(signal));
      socket.destroy();
    };
    if (signal.aborted) abort();
    else {
      signal.addEventListener('abort', abort, { once: true });
      socket.on('close', () => signal.removeEventListener('abort', abort));
    }
  }

  /** @returns The line as sent, without its line feed. */
  send(message: Message): string {
    return this.sendLine(encodeMessage(message));
  }

  /** Sends a message that was encoded before. */
  sendLine(line: string): string {
    if (this.#failure === undefined) this.socket.write(`${line}\n`);
    return line;
  }

  /** @throws {HandshakeError} What {@link decodeMessage} throws; `timeout`; `disconnected`; `aborted`. */
  async receive<Type extends MessageType>(type: Type): Promise<{ message: MessageOf<Type>; line: string }> {
    const line = await this.#line(type);
    return { message: decodeMessage(type, line), line };
  }

  /** Says why it ends here, unless the peer said so first, and closes. */
  refuse(error: HandshakeError): void {
    if (error.by === 'us' && error.code !== 'disconnected' && this.#failure?.code !== 'disconnected')
      this.socket.write(
        `${encodeMessage({ type: 'refused', code: error.code, detail: error.message.slice(0, 512) })}\n`,
      );
    this.close();
  }

  /** Ends the connection, giving what was written a moment to leave. */
  close(): void {
    closeSoon(this.socket);
  }

  async #line(due: MessageType): Promise<string> {
    const deadline = setTimeout(
      () => this.#fail(new HandshakeError('timeout', `no "${due}" within ${this.#timeoutMs} ms`)),
      this.#timeoutMs,
    );
    try {
      for (;;) {
        // A refusal that arrived before the connection broke says more than that it broke.
        const line = this.#reader.shift();
        if (line !== undefined && (this.#failure === undefined || this.#failure.code === 'disconnected')) return line;
        if (this.#failure !== undefined) throw this.#failure;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    } finally {
      clearTimeout(deadline);
    }
  }

  #fail(error: HandshakeError): void {
    this.#failure ??= error;
    this.#wake?.();
  }
}

/** The reason that an attempt was given up with, as an error of the handshake. */
export function abortedBy(signal: AbortSignal): HandshakeError {
  const reason: unknown = signal.reason;
  return reason instanceof HandshakeError ? reason : new HandshakeError('aborted', undefined, { cause: reason });
}

const lingerMs = 1000;

/** Ends a socket politely, and for certain. */
export function closeSoon(socket: TLSSocket): void {
  if (socket.destroyed) return;
  socket.end();
  const timer = setTimeout(() => socket.destroy(), lingerMs);
  timer.unref();
  socket.once('close', () => clearTimeout(timer));
}
