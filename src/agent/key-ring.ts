import type { Logger } from 'pino';
import type { InboundSa, InstalledSa, OutboundSa } from '../tunnel/driver.ts';
import { saKey } from '../tunnel/sa-ledger.ts';
import type { KeyReport } from './wire.ts';

export interface KeyRingDeps {
  /** What is installed now: nothing else is kept. */
  readonly installed: () => Promise<readonly InstalledSa[]>;
  /** This node's own address on the underlay. */
  readonly underlay: string;
  /** Tells the cluster that keys have left the node. Must not throw. */
  readonly warn: (message: string) => Promise<void>;
  readonly logger: Logger;
}

/** Between two looks at what has gone, in keys taken. */
const pruneEvery = 256;

/**
 * Copies of the tunnels' keys, for debugging what is on the wire. There is none of these in an agent that was not started
 * with --allow-key-export: then a key is only where packets are sealed.
 */
export class KeyRing {
  readonly #deps: KeyRingDeps;
  readonly #keys = new Map<string, { readonly sa: InboundSa | OutboundSa; readonly secret: Buffer }>();
  #taken = 0;

  constructor(deps: KeyRingDeps) {
    this.#deps = deps;
    deps.logger.warn('started with --allow-key-export: root on this node can read the tunnels’ keys');
  }

  /** To be called before the driver has the SA, which zeroes what it is given. */
  take(sa: InboundSa | OutboundSa): void {
    this.#keys.set(saKey(sa), { sa, secret: Buffer.concat([sa.key, sa.salt]) });
    if (++this.#taken % pruneEvery === 0) this.#prune().catch(() => undefined);
  }

  /** Every key that is in use and was agreed on since this agent started. Leaves a warning behind. */
  async export(): Promise<KeyReport[]> {
    await this.#prune();
    const { underlay, warn, logger } = this.#deps;
    const message = `${this.#keys.size} keys of tunnels were exported for debugging: who has them can read what they seal`;
    logger.warn({ keys: this.#keys.size }, 'keys of tunnels were exported');
    await warn(message);
    return [...this.#keys.values()].map(({ sa, secret }) => ({
      direction: sa.direction,
      spi: sa.spi,
      source: sa.direction === 'in' ? sa.peer.address : underlay,
      destination: sa.direction === 'in' ? underlay : sa.peer.address,
      selectors: sa.selectors.map(({ local, remote }) => `${local} ${remote}`),
      secret: secret.toString('hex'),
    }));
  }

  close(): void {
    for (const { secret } of this.#keys.values()) secret.fill(0);
    this.#keys.clear();
  }

  async #prune(): Promise<void> {
    const installed = new Set((await this.#deps.installed()).map(saKey));
    for (const [key, { secret }] of this.#keys) {
      if (installed.has(key)) continue;
      secret.fill(0);
      this.#keys.delete(key);
    }
  }
}
