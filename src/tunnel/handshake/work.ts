import type { Logger } from 'pino';
import type { TlsContexts, TlsIdentity } from './credentials.ts';
import { type Destination, dial } from './dial.ts';
import type { SecureLink } from './link.ts';
import { TlsThreads, type TlsThreadsOptions } from './threads/pool.ts';

export interface TlsWorkOptions extends TlsThreadsOptions {
  /** Handshakes under way on this thread before others are begun. Default 16. */
  readonly mostHere?: number;
}

/** Once there are threads, this one keeps that many: what comes alone is done sooner here. */
const mostBeside = 2;

/**
 * Where TLS handshakes are done. Few are done on this thread: one takes a few milliseconds of it, and a thread costs 18 MiB
 * and a tenth of a second to begin. When many come at once they are done on threads, so that pods and policies are not
 * kept waiting by them.
 */
export class TlsWork {
  readonly threads: TlsThreads;
  readonly #timeoutMs: number;
  readonly #mostHere: number;
  readonly #contexts: TlsContexts;
  #here = 0;

  constructor(options: TlsWorkOptions, deps: { readonly contexts: TlsContexts; readonly logger: Logger }) {
    this.#timeoutMs = options.timeoutMs;
    this.#mostHere = options.mostHere ?? 16;
    this.#contexts = deps.contexts;
    this.threads = new TlsThreads(options, deps.logger);
  }

  /** Whether the next handshake is one too many for this thread. */
  get isFull(): boolean {
    return this.#here >= (this.threads.size > 0 ? Math.min(mostBeside, this.#mostHere) : this.#mostHere);
  }

  /** A handshake begins on this thread. @returns To be called when it is done; calling it again does nothing. */
  begin(): () => void {
    this.#here++;
    let under = true;
    return () => {
      if (under) this.#here--;
      under = false;
    };
  }

  /**
   * As {@link dial}, on whichever thread has time.
   * @param here On this one in any case: the connection is to stay, and its thread with it.
   */
  async dial(to: Destination, identity: TlsIdentity, signal: AbortSignal, here = false): Promise<SecureLink> {
    if (this.isFull && !here) {
      const { threads } = this;
      const shown = this.#contexts.portable(identity);
      return await dial(to, this.#timeoutMs, signal, (attempt) => threads.dial(to, shown, attempt));
    }
    const done = this.begin();
    try {
      return await dial(to, this.#timeoutMs, signal, this.#contexts.get(identity));
    } finally {
      done();
    }
  }

  async close(): Promise<void> {
    await this.threads.close();
  }
}
