import type { ProxyImage } from '../policy/proxy/image.ts';
import { candidates, type Judge, type ProxiedConnection } from '../policy/proxy/judge.ts';

/**
 * The policy in force: the image that the agent said last. It stays in force when the agent goes; before the first one
 * there is nothing to judge by.
 */
export class PolicyInForce {
  #image: ProxyImage | undefined;
  #revision = 0;
  readonly #listeners = new Set<() => void>();

  /** 0 before the first image. */
  get revision(): number {
    return this.#revision;
  }

  /** Whoever listens hears of it before anything else is judged. */
  take(revision: number, image: ProxyImage): void {
    this.#image = image;
    this.#revision = revision;
    for (const listener of [...this.#listeners]) listener();
  }

  /** @returns Undefined before the first image. */
  judgeFor(connection: ProxiedConnection): Judge | undefined {
    return this.#image === undefined ? undefined : candidates(this.#image, connection);
  }

  /** @returns How to stop listening. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
