import type { HandshakeError } from './error.ts';

export interface CancelListener {
  cancelled(reason: HandshakeError): void;
}

/**
 * Gives one attempt up. What an AbortController is for, at a tenth of its weight where thousands of attempts are under way:
 * one is made only for those who need a signal.
 */
export class Cancel {
  #reason: HandshakeError | undefined;
  #listener: CancelListener | undefined;
  #controller: AbortController | undefined;

  /** Why, where it has been given up. */
  get reason(): HandshakeError | undefined {
    return this.#reason;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#reason !== undefined) this.#controller.abort(this.#reason);
    }
    return this.#controller.signal;
  }

  /** @param listener Is told, in place of who was before: an attempt is in one place at a time. Told at once if it is late. */
  listen(listener: CancelListener | undefined): void {
    this.#listener = listener;
    if (this.#reason !== undefined) listener?.cancelled(this.#reason);
  }

  /** The first reason counts. */
  cancel(reason: HandshakeError): void {
    if (this.#reason !== undefined) return;
    this.#reason = reason;
    this.#controller?.abort(reason);
    this.#listener?.cancelled(reason);
  }
}
