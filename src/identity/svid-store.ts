import { EventEmitter } from 'node:events';
import { setTimeout as wait } from 'node:timers/promises';
import type { Logger } from 'pino';
import { type BundleStore, parseBundle } from './bundle.ts';
import { messageOf, parseCertificates } from './certificate.ts';
import { buildCsr } from './csr.ts';
import { IdentityError } from './error.ts';
import { podSpiffeId } from './names.ts';
import type { Issuer, PodIdentity, Svid } from './svid.ts';
import { verifyPeer } from './verify.ts';
import { newKeyPair } from './x509.ts';

export interface SvidStoreOptions {
  /** What to ask the issuer for; absent: its default. */
  readonly lifetimeMs?: number;
  /** First and longest pause after a failure. Defaults 100 ms and 30 s. */
  readonly firstRetryMs?: number;
  readonly longestRetryMs?: number;
}

export interface SvidStoreDeps {
  readonly issuer: Issuer;
  /** Bundles that come with certificates are offered to it. */
  readonly bundles: BundleStore;
  readonly logger: Logger;
  /** Default Date.now. */
  readonly now?: () => number;
  /** In [0, 1); default Math.random. */
  readonly random?: () => number;
  /** Rejects when the signal aborts. Default: a timer that does not keep the process alive. */
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<unknown>;
}

export interface SvidStoreEvents {
  issued: [svid: Svid];
  /** The same pod's next certificate, with a new key. */
  renewed: [svid: Svid, previous: Svid];
  /** One attempt failed; the store goes on trying. */
  failed: [podUid: string, error: Error];
  /** Renewal failed for so long that the pod has no certificate now. */
  expired: [podUid: string];
}

export interface SvidStatistics {
  readonly held: number;
  /** Pods that have no valid certificate now. */
  readonly waiting: number;
  readonly issued: number;
  readonly renewed: number;
  readonly failed: number;
  readonly expired: number;
}

interface Entry {
  readonly identity: PodIdentity;
  readonly abort: AbortController;
  readonly first: PromiseWithResolvers<Svid>;
  svid: Svid | undefined;
  lastError: Error | undefined;
}

/** When to renew a certificate that was received at `now`: after half of what is left of it, give or take a tenth. */
export function renewalDelayMs(notAfter: number, now: number, random: number): number {
  return Math.max(0, (notAfter - now) * (0.45 + 0.1 * random));
}

/** The pause after the n-th failure in a row (n from 1): doubling, bounded, spread so that nodes do not ask in step. */
export function retryDelayMs(failures: number, firstMs: number, longestMs: number, random: number): number {
  return Math.min(longestMs, firstMs * 2 ** Math.min(failures - 1, 30)) * (0.5 + 0.5 * random);
}

/** Keeps a fresh certificate for every pod of this node. */
export class SvidStore extends EventEmitter<SvidStoreEvents> {
  readonly #options: SvidStoreOptions;
  readonly #deps: SvidStoreDeps;
  readonly #now: () => number;
  readonly #random: () => number;
  readonly #entries = new Map<string, Entry>();
  readonly #counts = { issued: 0, renewed: 0, failed: 0, expired: 0 };
  #lifetimeMs: number | undefined;
  #closed = false;

  constructor(options: SvidStoreOptions, deps: SvidStoreDeps) {
    super();
    this.#options = options;
    this.#lifetimeMs = options.lifetimeMs;
    this.#deps = deps;
    this.#now = deps.now ?? Date.now;
    this.#random = deps.random ?? Math.random;
  }

  /**
   * Starts keeping a certificate for the pod.
   * @returns Its first one, however long that takes; the same promise when the pod is kept already.
   * @throws {IdentityError} `Abandoned` when the pod is removed, or the store closed, before.
   */
  add(identity: PodIdentity): Promise<Svid> {
    if (this.#closed) return Promise.reject(abandoned(identity.pod.uid));
    const known = this.#entries.get(identity.pod.uid);
    if (known !== undefined) return known.first.promise;
    const entry: Entry = {
      identity,
      abort: new AbortController(),
      first: Promise.withResolvers(),
      svid: undefined,
      lastError: undefined,
    };
    // Whoever added the pod may not be listening any more when it goes.
    entry.first.promise.catch(() => undefined);
    this.#entries.set(identity.pod.uid, entry);
    void this.#keep(entry);
    return entry.first.promise;
  }

  /** What to ask the issuer for from the next certificate on. */
  setLifetime(lifetimeMs: number): void {
    this.#lifetimeMs = lifetimeMs;
  }

  /** The pod's certificate, or undefined while it has none that is valid. */
  get(podUid: string): Svid | undefined {
    const svid = this.#entries.get(podUid)?.svid;
    return svid !== undefined && this.#now() < svid.notAfter ? svid : undefined;
  }

  /** Why the pod has no certificate, or its last renewal failed; undefined when all is well. */
  lastError(podUid: string): Error | undefined {
    return this.#entries.get(podUid)?.lastError;
  }

  /** Pods whose certificate could not be had or renewed at the last attempt, and why. */
  failing(): { readonly pod: PodIdentity['pod']; readonly error: Error; readonly hasOne: boolean }[] {
    return [...this.#entries.values()].flatMap(({ identity: { pod }, lastError: error }) =>
      error === undefined ? [] : [{ pod, error, hasOne: this.get(pod.uid) !== undefined }],
    );
  }

  /** Forgets the pod and its key. */
  remove(podUid: string): void {
    const entry = this.#entries.get(podUid);
    if (entry === undefined) return;
    this.#entries.delete(podUid);
    entry.abort.abort();
    entry.first.reject(abandoned(podUid));
  }

  statistics(): SvidStatistics {
    const held = [...this.#entries.keys()].filter((uid) => this.get(uid) !== undefined).length;
    return { held, waiting: this.#entries.size - held, ...this.#counts };
  }

  close(): void {
    this.#closed = true;
    for (const uid of [...this.#entries.keys()]) this.remove(uid);
  }

  async #keep(entry: Entry): Promise<void> {
    const { signal } = entry.abort;
    const sleep = this.#deps.sleep ?? ((ms, aborted) => wait(ms, undefined, { signal: aborted, ref: false }));
    let failures = 0;
    while (!signal.aborted) {
      let pause: number;
      try {
        const svid = await this.#issue(entry.identity, signal);
        if (signal.aborted) return;
        failures = 0;
        this.#accept(entry, svid);
        pause = renewalDelayMs(svid.notAfter, this.#now(), this.#random());
      } catch (cause) {
        if (signal.aborted) return;
        failures++;
        this.#note(entry, cause instanceof Error ? cause : new Error(String(cause)), failures);
        const { firstRetryMs = 100, longestRetryMs = 30_000 } = this.#options;
        pause = retryDelayMs(failures, firstRetryMs, longestRetryMs, this.#random());
      }
      await sleep(pause, signal).catch(() => undefined);
    }
  }

  async #issue(identity: PodIdentity, signal: AbortSignal): Promise<Svid> {
    const { issuer, bundles } = this.#deps;
    const keys = await newKeyPair();
    const issued = await issuer.issue({ ...identity, csr: await buildCsr(keys), lifetimeMs: this.#lifetimeMs }, signal);
    bundles.offer(parseBundle(issued.bundle));
    const chain = parseCertificates(issued.chain);
    const bundle = bundles.current;
    const { namespace, uid } = identity.pod;
    const spiffeId = podSpiffeId({
      trustDomain: bundle.trustDomain,
      namespace,
      serviceAccount: identity.serviceAccount,
    });
    const expectation = { kind: 'pod', spiffeId, podUid: uid, addresses: identity.addresses } as const;
    const verified = verifyPeer(chain, bundle, expectation, this.#now());
    if (!verified.ok)
      throw new IdentityError('BadCertificate', `the issuer’s certificate for pod ${uid}: ${verified.reason.detail}`);
    const [leaf] = chain;
    if (leaf === undefined || !leaf.publicKey.equals(keys.publicKey))
      throw new IdentityError('BadCertificate', `the issuer’s certificate for pod ${uid} is for another key`);
    const { notBefore, notAfter, addresses } = leaf;
    return { spiffeId, podUid: uid, addresses, chain, privateKey: keys.privateKey, notBefore, notAfter };
  }

  #accept(entry: Entry, svid: Svid): void {
    const previous = entry.svid;
    entry.svid = svid;
    entry.lastError = undefined;
    if (previous === undefined) {
      this.#counts.issued++;
      this.emit('issued', svid);
    } else {
      this.#counts.renewed++;
      this.emit('renewed', svid, previous);
    }
    entry.first.resolve(svid);
  }

  #note(entry: Entry, error: Error, failures: number): void {
    const { uid } = entry.identity.pod;
    this.#counts.failed++;
    entry.lastError = error;
    // The first failure is news; a store that goes on failing says so at ever longer distances.
    const level = failures === 1 || (failures & (failures - 1)) === 0 ? 'warn' : 'debug';
    this.#deps.logger[level](
      { pod: entry.identity.pod, failures, error: messageOf(error) },
      'no certificate for a pod',
    );
    this.emit('failed', uid, error);
    if (entry.svid !== undefined && this.#now() >= entry.svid.notAfter) {
      entry.svid = undefined;
      this.#counts.expired++;
      this.#deps.logger.error({ pod: entry.identity.pod }, 'a pod’s certificate has expired');
      this.emit('expired', uid);
    }
  }
}

function abandoned(podUid: string): IdentityError {
  return new IdentityError('Abandoned', `pod ${podUid} was removed before it had a certificate`);
}
