import type { Logger } from 'pino';
import { Reflector } from '../api/client/reflector.ts';
import type { Api, Entry } from '../api/client/types.ts';
import { ownKinds, type Revocation } from '../api/kinds.ts';
import type { CertificateAuthority } from '../identity/ca.ts';
import { type ReadRevocation, readRevocation, revocationConditions, uniteRevocations } from './revocation-list.ts';
import { writeStatus } from './status-writer.ts';

export interface RevocationsDeps {
  readonly api: Api;
  readonly ca: CertificateAuthority;
  readonly logger: Logger;
  /** Called when the trust bundle says something else than before. */
  readonly onChanged: () => void;
  /** Unix milliseconds; default Date.now. */
  readonly now?: () => number;
}

/** Node's timers end at 2^31 ms. */
const longestTimerMs = 0x7fff_ffff;
const retryMs = 500;

/**
 * Puts the API's Revocation objects into the trust bundle, and takes them out when they are gone or have expired. Every
 * controller does so, because every one answers nodes; the one that leads also writes the objects' status.
 */
export class RevocationController {
  readonly #deps: RevocationsDeps;
  readonly #now: () => number;
  #objects: Reflector<Revocation> | undefined;
  #leads = false;
  #synced = false;
  #wanted = false;
  #running: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(deps: RevocationsDeps) {
    this.#deps = deps;
    this.#now = deps.now ?? Date.now;
  }

  /** Begins once the API knows the kind. Until the first list is in, what was known before stays in force. */
  start(): void {
    const objects = new Reflector<Revocation>({ resource: ownKinds.Revocation }, this.#deps).start();
    this.#objects = objects;
    objects.onChange(() => this.#schedule());
    objects.synced.then(
      () => {
        this.#synced = true;
        this.#schedule();
      },
      () => undefined,
    );
  }

  /** Whether to write statuses. */
  lead(leads: boolean): void {
    this.#leads = leads;
    this.#schedule();
  }

  async close(): Promise<void> {
    this.#synced = false;
    clearTimeout(this.#timer);
    await this.#objects?.close();
    await this.#running;
  }

  #schedule(): void {
    this.#wanted = true;
    if (!this.#synced) return;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
  }

  async #run(): Promise<void> {
    while (this.#wanted && this.#synced) {
      this.#wanted = false;
      // Changes of one turn, a first list's among them, become one bundle.
      await new Promise((resolve) => setImmediate(resolve));
      try {
        await this.#unite();
      } catch (error) {
        this.#deps.logger.error({ err: error }, 'revocations cannot be published; tried again');
        this.#again(retryMs);
      }
    }
  }

  async #unite(): Promise<void> {
    const { ca, logger, onChanged } = this.#deps;
    const all = [...(this.#objects?.entries() ?? [])].map((entry) => ({
      entry,
      read: readRevocation(entry, ca.trustDomain),
    }));
    const now = this.#now();
    const revoked = uniteRevocations(
      all.map(({ read }) => read),
      now,
    );
    if (await ca.declare(revoked)) {
      const { serials, podUids, spiffeIds } = revoked;
      logger.warn({ sequence: ca.bundle.sequence, serials, podUids, spiffeIds }, 'the list of revocations has changed');
      onChanged();
    }
    const next = Math.min(...all.map(({ read }) => read.expires ?? Number.POSITIVE_INFINITY).filter((at) => at > now));
    clearTimeout(this.#timer);
    if (next < Number.POSITIVE_INFINITY) this.#again(next - now + 1);
    if (this.#leads) for (const { entry, read } of all) await this.#tell(entry, read);
  }

  #again(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#schedule(), Math.min(ms, longestTimerMs));
    this.#timer.unref();
  }

  async #tell(entry: Entry<Revocation>, read: ReadRevocation): Promise<void> {
    const { sequence } = this.#deps.ca.bundle;
    const now = this.#now();
    await writeStatus(
      { resource: ownKinds.Revocation, raw: entry.raw },
      revocationConditions(read, sequence, now),
      { ...this.#deps, now: new Date(now) },
      { target: read.target, sequence },
      ['Effective'],
    );
  }
}
