import type { ProxyStats } from '../policy/proxy/wire.ts';

/** What the process has and has done: `ProxyStats` in the making. */
export class Counts {
  connections = 0;
  streams = 0;
  accepted = 0;
  allowed = 0;
  denied = 0;
  draining = false;
  readonly #refused = new Map<string, number>();

  /** A connection that came to its end by us before a request of it was judged. */
  refuse(reason: string): void {
    this.#refused.set(reason, (this.#refused.get(reason) ?? 0) + 1);
  }

  get stats(): ProxyStats {
    const { connections, streams, accepted, allowed, denied, draining } = this;
    return { connections, streams, accepted, allowed, denied, draining, refused: Object.fromEntries(this.#refused) };
  }
}
