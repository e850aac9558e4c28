import type { Logger } from 'pino';
import type { KubeObject, Live } from '../kinds.ts';
import { Backoff } from './backoff.ts';
import { nextDefinition } from './definition.ts';
import { ApiError, isApiError } from './error.ts';
import { EntryStore } from './store.ts';
import type { Api, Change, Entry, ObjectStore, ReflectorHealth, ReflectorOptions, WatchEvent } from './types.ts';

const firstWaitMs = 100;
const longestWaitMs = 10_000;
/** While the API does not know the kind, and its definition cannot be watched: many clients ask after many kinds. */
const longestAbsenceMs = 60_000;
/** A watch that ends sooner than this was not much of one: the next is not opened at once. */
const shortWatchMs = 1000;

/**
 * Keeps a copy of one kind: lists, watches from where the list ended, resumes where a watch broke off, lists again when the
 * server has forgotten that point, waits longer each time that it fails. While the API is away the copy stays as it was.
 * The copy is without `metadata.managedFields`: often the larger half of an object, and of use to who writes only.
 */
export class Reflector<T extends KubeObject> implements ObjectStore<T> {
  /** Settles when the first list is in; is rejected with `Aborted` where `close` comes first. */
  readonly synced: Promise<void>;
  readonly #options: ReflectorOptions<T>;
  readonly #api: Api;
  readonly #logger: Logger;
  readonly #store: EntryStore<T>;
  readonly #stop = new AbortController();
  readonly #backoff = new Backoff(firstWaitMs, longestWaitMs);
  readonly #absence: Backoff;
  /** The version of the kind's definition that was heard of last. */
  #definition: string | undefined;
  readonly #sync = Promise.withResolvers<void>();
  #health: ReflectorHealth = { synced: false, lastContact: 0, error: undefined, relists: 0 };
  #version: string | undefined;
  #running: Promise<void> | undefined;

  constructor(options: ReflectorOptions<T>, deps: { api: Api; logger: Logger }) {
    this.#options = options;
    this.#absence = new Backoff(options.absenceMs ?? firstWaitMs, options.absenceMs ?? longestAbsenceMs);
    this.#api = deps.api;
    this.#logger = deps.logger.child({ kind: options.resource.kind });
    this.#store = new EntryStore(options.indexes ?? {}, (err) => this.#logger.error({ err }, 'a listener failed'));
    this.synced = this.#sync.promise;
    // Nobody has to wait for it.
    this.synced.catch(() => {});
  }

  get health(): ReflectorHealth {
    return this.#health;
  }

  get size(): number {
    return this.#store.size;
  }

  get(key: string): Entry<T> | undefined {
    return this.#store.get(key);
  }

  entries(): Iterable<Entry<T>> {
    return this.#store.entries();
  }

  objects(): Live<T>[] {
    return this.#store.objects();
  }

  byIndex(index: string, value: string): Entry<T>[] {
    return this.#store.byIndex(index, value);
  }

  onChange(listener: (change: Change<T>) => void): () => void {
    return this.#store.onChange(listener);
  }

  /** Begins. Once; a second call does nothing. */
  start(): this {
    this.#running ??= this.#run();
    return this;
  }

  /** Ends the watch; the content stays readable. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#sync.reject(new ApiError('Aborted', `the reflector of ${this.#options.resource.plural} was closed`));
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        if (this.#version === undefined) await this.#list();
        await this.#watch();
      } catch (error) {
        if (!signal.aborted) await this.#recover(error);
      }
    }
  }

  async #list(): Promise<void> {
    const { resource, namespace, labelSelector, fieldSelector } = this.#options;
    const { entries, resourceVersion } = await this.#api.list(resource, {
      ...(namespace === undefined ? {} : { namespace }),
      ...(labelSelector === undefined ? {} : { labelSelector }),
      ...(fieldSelector === undefined ? {} : { fieldSelector }),
      signal: this.#stop.signal,
    });
    this.#store.replace(entries.map(withoutManagedFields));
    this.#version = resourceVersion;
    this.#heard();
    this.#health = { ...this.#health, synced: true };
    this.#sync.resolve();
  }

  async #watch(): Promise<void> {
    const { resource, namespace, labelSelector, fieldSelector } = this.#options;
    const started = performance.now();
    const events = this.#api.watch(resource, {
      ...(namespace === undefined ? {} : { namespace }),
      ...(labelSelector === undefined ? {} : { labelSelector }),
      ...(fieldSelector === undefined ? {} : { fieldSelector }),
      ...(this.#version === undefined ? {} : { resourceVersion: this.#version }),
      // Of a quiet kind the first word comes with the next bookmark, and until then all would seem lost.
      onOpen: () => this.#heard(),
      signal: this.#stop.signal,
    });
    for await (const event of events) this.#take(event);
    if (performance.now() - started < shortWatchMs) await this.#backoff.wait(this.#stop.signal);
    else this.#backoff.reset();
  }

  #take(event: WatchEvent<T>): void {
    if (event.type === 'DELETED') this.#store.remove(event.entry.key, event.entry);
    else if (event.type !== 'BOOKMARK') this.#store.put(withoutManagedFields(event.entry));
    if (event.resourceVersion !== '') this.#version = event.resourceVersion;
    this.#heard();
    this.#backoff.reset();
  }

  #heard(): void {
    this.#health = { ...this.#health, lastContact: Date.now(), error: undefined };
  }

  async #recover(error: unknown): Promise<void> {
    if (this.#options.optional === true && isApiError(error, 'NotFound')) {
      this.#absent();
      await this.#untilDefined();
      return;
    }
    // Forgotten by the server, or never known to it: one whose data was put back, or made anew, has smaller versions.
    const lost = isApiError(error, 'Expired', 'Gone') || (isApiError(error, 'Timeout') && this.#version !== undefined);
    const message = error instanceof Error ? error.message : String(error);
    if (lost || isApiError(error, 'BadRequest', 'Malformed')) {
      this.#version = undefined;
      this.#health = { ...this.#health, error: message, relists: this.#health.relists + 1 };
      this.#logger.info({ err: error }, 'listing again');
    } else {
      if (this.#health.error !== message)
        this.#logger.warn({ err: error }, 'the API is not there; what is known stays');
      this.#health = { ...this.#health, error: message };
    }
    await this.#pause(this.#backoff);
  }

  /**
   * The API does not know the kind. What was known of it stays all the same: objects of a kind that is taken away are
   * deleted one by one before, and an API server that is only starting does not know its kinds either.
   */
  #absent(): void {
    if (!this.#health.synced) this.#logger.info('the API does not know this kind: there is none of it so far');
    this.#version = undefined;
    this.#heard();
    this.#health = { ...this.#health, synced: true };
    this.#sync.resolve();
  }

  /** Waits until the kind is defined, as far as that can be watched, but not for ever: it may be known all the same. */
  async #untilDefined(): Promise<void> {
    const over = new AbortController();
    const signal = AbortSignal.any([this.#stop.signal, over.signal]);
    const watching = nextDefinition(this.#api, this.#options.resource, this.#definition, signal).then((version) => {
      if (version === undefined) return;
      this.#definition = version;
      // What is defined is served soon.
      this.#absence.reset();
      over.abort();
    });
    await this.#pause(this.#absence, signal);
    over.abort();
    await watching;
  }

  async #pause(backoff: Backoff, signal = this.#stop.signal): Promise<void> {
    try {
      await backoff.wait(signal);
    } catch (aborted) {
      if (!signal.aborted) throw aborted;
    }
  }
}

/** Of an entry that was just read, and so is nobody else's. */
function withoutManagedFields<T extends KubeObject>(entry: Entry<T>): Entry<T> {
  const { managedFields, ...metadata } = entry.raw.metadata;
  if (managedFields !== undefined) entry.raw.metadata = metadata;
  return entry;
}
