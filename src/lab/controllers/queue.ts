import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';

export interface QueueOptions {
  readonly name: string;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** How many keys are worked on at once; default 1. */
  readonly workers?: number;
}

const retryMs = { first: 100, last: 5000 };

/**
 * Works off keys, each as often as it was asked for after its last turn began and never twice at once; a key that fails
 * comes again, later each time. The shape of every Kubernetes controller.
 */
export class WorkQueue {
  readonly #options: QueueOptions;
  readonly #reconcile: (key: string) => Promise<void>;
  readonly #waiting = new Set<string>();
  readonly #active = new Set<string>();
  readonly #failures = new Map<string, number>();

  constructor(options: QueueOptions, reconcile: (key: string) => Promise<void>) {
    this.#options = options;
    this.#reconcile = reconcile;
  }

  add(key: string): void {
    if (this.#options.signal.aborted) return;
    this.#waiting.add(key);
    // Not at once: events come in bursts, and one turn serves them all.
    setImmediate(() => this.#pump());
  }

  #pump(): void {
    for (const key of this.#waiting) {
      if (this.#active.size >= (this.#options.workers ?? 1) || this.#options.signal.aborted) return;
      if (this.#active.has(key)) continue;
      this.#waiting.delete(key);
      this.#active.add(key);
      void this.#turn(key).finally(() => {
        this.#active.delete(key);
        this.#pump();
      });
    }
  }

  async #turn(key: string): Promise<void> {
    const { log, name, signal } = this.#options;
    try {
      await this.#reconcile(key);
      this.#failures.delete(key);
    } catch (error) {
      if (signal.aborted) return;
      const failures = (this.#failures.get(key) ?? 0) + 1;
      this.#failures.set(key, failures);
      log.warn({ controller: name, key, err: error }, 'will try again');
      const delay = Math.min(retryMs.first * 2 ** (failures - 1), retryMs.last);
      void sleep(delay, undefined, { signal, ref: false }).then(
        () => this.add(key),
        () => undefined,
      );
    }
  }
}
