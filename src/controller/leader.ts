import { setTimeout as wait } from 'node:timers/promises';
import type { Logger } from 'pino';
import { isApiError } from '../api/client/error.ts';
import type { Api } from '../api/client/types.ts';
import { kinds, type Lease, type Live } from '../api/kinds.ts';
import { messageOf } from '../identity/certificate.ts';

export interface LeaderOptions {
  /** Of this process among those that compete; the same after a restart, so that it need not wait for itself. */
  readonly identity: string;
  readonly name?: string;
  readonly namespace?: string;
  /** How long a leader that says nothing is believed to be alive. Default 15 s. */
  readonly durationMs?: number;
  /** How often the leader says something, and the others look. Default 2 s. */
  readonly intervalMs?: number;
}

export interface LeaderDeps {
  readonly api: Api;
  readonly logger: Logger;
  readonly onStarted: () => void;
  readonly onStopped: () => Promise<void>;
  /** Unix milliseconds; default Date.now. */
  readonly now?: () => number;
}

/** What is known of a Lease: its text, and since when it has read so here. The clocks of two controllers are not compared. */
interface Seen {
  readonly record: string;
  readonly at: number;
}

/** Whether the lease may be taken, or renewed, by `identity`. Pure. */
function mayLead(lease: Lease, identity: string, seen: Seen, now: number, durationMs: number): boolean {
  const holder = lease.spec?.holderIdentity ?? '';
  return holder === '' || holder === identity || now - seen.at > durationMs;
}

/**
 * Leader election by a Lease, as client-go does it: whoever holds the Lease and renews it leads, a Lease that has not
 * changed for its whole duration may be taken, and resourceVersion lets one of two takers win.
 */
export class Leader {
  readonly #options: Required<LeaderOptions>;
  readonly #deps: LeaderDeps;
  readonly #now: () => number;
  readonly #stop = new AbortController();
  #seen: Seen = { record: '', at: 0 };
  #leading = false;
  #running: Promise<void> | undefined;

  constructor(options: LeaderOptions, deps: LeaderDeps) {
    this.#options = {
      name: 'myelin-controller',
      namespace: 'kube-system',
      durationMs: 15_000,
      intervalMs: 2000,
      ...options,
    };
    this.#deps = deps;
    this.#now = deps.now ?? Date.now;
  }

  get leading(): boolean {
    return this.#leading;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Stops leading, and lets another take over at once. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    const { durationMs, intervalMs } = this.#options;
    let renewedAt = 0;
    while (!signal.aborted) {
      try {
        if (await this.#hold()) {
          renewedAt = this.#now();
          this.#lead();
        } else await this.#follow('another controller leads');
      } catch (error) {
        this.#deps.logger.debug({ error: messageOf(error) }, 'the lease could not be renewed');
        // Gone before anybody else may take the lease.
        if (this.#now() - renewedAt > (durationMs * 2) / 3)
          await this.#follow('the lease could not be renewed in time');
      }
      await wait(intervalMs, undefined, { signal, ref: false }).catch(() => undefined);
    }
    const led = this.#leading;
    await this.#follow('the controller stops');
    if (led) await this.#write('').catch(() => undefined);
  }

  #lead(): void {
    if (this.#leading) return;
    this.#leading = true;
    this.#deps.logger.info({ identity: this.#options.identity }, 'this controller leads');
    this.#deps.onStarted();
  }

  async #follow(why: string): Promise<void> {
    if (!this.#leading) return;
    this.#leading = false;
    this.#deps.logger.info({ why }, 'this controller does not lead any more');
    await this.#deps.onStopped();
  }

  /** @returns Whether the lease is ours now. */
  async #hold(): Promise<boolean> {
    try {
      return await this.#write(this.#options.identity);
    } catch (error) {
      // Somebody was faster, or wrote in between: looked at again.
      if (isApiError(error, 'Conflict', 'AlreadyExists')) return false;
      throw error;
    }
  }

  async #write(holder: string): Promise<boolean> {
    const { name, namespace, identity, durationMs } = this.#options;
    const { api } = this.#deps;
    const time = microTime(this.#now());
    const lease = await this.#read();
    const spec = {
      holderIdentity: holder,
      leaseDurationSeconds: Math.ceil(durationMs / 1000),
      renewTime: time,
    };
    if (lease === undefined) {
      const fresh = { ...spec, acquireTime: time, leaseTransitions: 0 };
      await api.create(kinds.Lease, {
        apiVersion: 'coordination.k8s.io/v1',
        kind: 'Lease',
        metadata: { name, namespace },
        spec: fresh,
      });
      return true;
    }
    const record = JSON.stringify(lease.spec ?? {});
    if (record !== this.#seen.record) this.#seen = { record, at: this.#now() };
    if (!mayLead(lease, identity, this.#seen, this.#now(), durationMs)) return false;
    const own = lease.spec?.holderIdentity === identity;
    const turns = own ? {} : { acquireTime: time, leaseTransitions: (lease.spec?.leaseTransitions ?? 0) + 1 };
    // With the resourceVersion that was read: of two takers the second is refused.
    await api.replace(kinds.Lease, { ...lease, spec: { ...lease.spec, ...turns, ...spec } });
    return true;
  }

  async #read(): Promise<Live<Lease> | undefined> {
    const { name, namespace } = this.#options;
    try {
      return await this.#deps.api.get(kinds.Lease, { namespace, name }, undefined);
    } catch (error) {
      if (isApiError(error, 'NotFound')) return undefined;
      throw error;
    }
  }
}

/** Kubernetes' MicroTime. */
function microTime(ms: number): string {
  return new Date(ms).toISOString().replace('Z', '000Z');
}
