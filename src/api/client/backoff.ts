import { setTimeout as sleep } from 'node:timers/promises';

/** Waits that double, with jitter, so that many clients of a server that comes back do not come all at once. */
export class Backoff {
  readonly #firstMs: number;
  readonly #mostMs: number;
  #nextMs: number;

  constructor(firstMs: number, mostMs: number) {
    this.#firstMs = firstMs;
    this.#mostMs = mostMs;
    this.#nextMs = firstMs;
  }

  /** Waits between half and all of the present time. @throws {AbortError} */
  async wait(signal: AbortSignal): Promise<void> {
    const ms = this.#nextMs * (0.5 + Math.random() / 2);
    this.#nextMs = Math.min(this.#mostMs, 2 * this.#nextMs);
    await sleep(ms, undefined, { signal });
  }

  reset(): void {
    this.#nextMs = this.#firstMs;
  }
}
