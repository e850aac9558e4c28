import { closeSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import type { Logger } from 'pino';
import type { LinkFacts, LinkListener, SecureLink } from '../link.ts';
import type { ThreadFailure, ThreadIdentity, ThreadReport, ThreadRequest } from './messages.ts';

export interface TlsThreadsOptions {
  readonly groups: string;
  readonly timeoutMs: number;
  /** Default: one less than there are processors, at least one and at most four. */
  readonly most?: number;
  /** How long a thread that has nothing to do is kept. Default 10 s. */
  readonly idleMs?: number;
}

/** What became of a connection, until it is secure; after that its link says. */
export interface Attempt {
  connected(): void;
  secure(link: SecureLink): void;
  /** It came to nothing. */
  failed(failure: ThreadFailure | undefined): void;
  /** Accepted connections: whom to be. Undefined: nobody of that name is here. */
  identityFor(serverName: string): ThreadIdentity | undefined;
  /** Last of all, whatever else was said. */
  closed(): void;
}

/** Identities that a thread has at once; the rest are told again. */
const mostIdentities = 256;
/** Another thread is begun when those there are have so much to do. */
const busy = 4;

/**
 * Threads that do TLS when there is much of it: begun when they are wanted, ended when they are idle. What they work on are
 * bytes; everything that is decided is decided on the thread that asks.
 */
export class TlsThreads {
  readonly #options: TlsThreadsOptions;
  readonly #logger: Logger;
  readonly #threads = new Set<Thread>();
  /** Threads begun so far. */
  begun = 0;

  constructor(options: TlsThreadsOptions, logger: Logger) {
    this.#options = options;
    this.#logger = logger;
  }

  get size(): number {
    return this.#threads.size;
  }

  /** @returns Gives the attempt up. */
  dial(
    to: { readonly host: string; readonly port: number; readonly serverName: string; readonly protocol: string },
    identity: ThreadIdentity,
    attempt: Attempt,
  ): () => void {
    return this.#thread().dial(to, identity, attempt);
  }

  /** @param fd The thread's from here on. */
  accept(fd: number, attempt: Attempt): void {
    this.#thread().accept(fd, attempt);
  }

  async close(): Promise<void> {
    await Promise.all([...this.#threads].map((thread) => thread.end()));
  }

  #thread(): Thread {
    const [least] = [...this.#threads].sort((a, b) => a.load - b.load);
    const { most = Math.min(4, Math.max(1, availableParallelism() - 1)) } = this.#options;
    if (least !== undefined && (least.load < busy || this.#threads.size >= most)) return least;
    const thread: Thread = new Thread(this.#options, this.#logger, () => this.#threads.delete(thread));
    this.#threads.add(thread);
    this.begun++;
    return thread;
  }
}

class Thread {
  readonly #worker: Worker;
  readonly #links = new Map<number, ThreadLink>();
  readonly #identities = new Set<string>();
  readonly #idleMs: number;
  readonly #onEnd: () => void;
  #idle: NodeJS.Timeout | undefined;
  #next = 1;

  constructor({ groups, timeoutMs, idleMs = 10_000 }: TlsThreadsOptions, logger: Logger, onEnd: () => void) {
    this.#idleMs = idleMs;
    this.#onEnd = onEnd;
    this.#worker = new Worker(new URL('./thread.ts', import.meta.url), {
      name: 'tls',
      execArgv: ['--disable-warning=ExperimentalWarning'],
      workerData: { groups, timeoutMs },
      resourceLimits: { maxOldGenerationSizeMb: 48, maxYoungGenerationSizeMb: 2 },
    });
    this.#worker.unref();
    this.#worker.on('message', (report: ThreadReport) => this.#hear(report));
    this.#worker.on('error', (error) => logger.error({ err: error }, 'a TLS thread failed'));
    this.#worker.once('exit', () => this.#exited());
  }

  get load(): number {
    return this.#links.size;
  }

  dial(
    to: { readonly host: string; readonly port: number; readonly serverName: string; readonly protocol: string },
    identity: ThreadIdentity,
    attempt: Attempt,
  ): () => void {
    this.#teach(identity);
    const link = this.#link(attempt, undefined);
    this.#say({ type: 'dial', link: link.id, ...to, identity: identity.name });
    return () => link.destroy();
  }

  accept(fd: number, attempt: Attempt): void {
    const link = this.#link(attempt, fd);
    this.#say({ type: 'accept', link: link.id, fd });
  }

  async end(): Promise<void> {
    clearTimeout(this.#idle);
    this.#onEnd();
    await this.#worker.terminate();
  }

  #link(attempt: Attempt, fd: number | undefined): ThreadLink {
    clearTimeout(this.#idle);
    const link = new ThreadLink(this.#next++, attempt, fd, (request) => this.#say(request));
    this.#links.set(link.id, link);
    return link;
  }

  #say(request: ThreadRequest): void {
    this.#worker.postMessage(request);
  }

  #teach(identity: ThreadIdentity): void {
    if (this.#identities.delete(identity.name)) {
      this.#identities.add(identity.name);
      return;
    }
    this.#identities.add(identity.name);
    this.#say({ type: 'identity', identity });
    if (this.#identities.size <= mostIdentities) return;
    const [oldest] = this.#identities;
    if (oldest === undefined) return;
    this.#identities.delete(oldest);
    this.#say({ type: 'forget', name: oldest });
  }

  #hear(report: ThreadReport): void {
    const link = this.#links.get(report.link);
    if (link === undefined) return;
    if (report.type === 'asked') {
      const identity = link.attempt.identityFor(report.serverName);
      if (identity !== undefined) this.#teach(identity);
      this.#say({ type: 'named', link: link.id, identity: identity?.name });
      return;
    }
    link.hear(report);
    if (report.type !== 'closed') return;
    this.#links.delete(link.id);
    if (this.#links.size > 0) return;
    this.#idle = setTimeout(() => void this.end(), this.#idleMs);
    this.#idle.unref();
  }

  #exited(): void {
    clearTimeout(this.#idle);
    this.#onEnd();
    for (const link of this.#links.values()) link.lost();
    this.#links.clear();
  }
}

/** A link whose bytes are worked on by a thread. */
class ThreadLink implements SecureLink {
  readonly id: number;
  readonly attempt: Attempt;
  readonly #say: (request: ThreadRequest) => void;
  readonly #exports: PromiseWithResolvers<Buffer>[] = [];
  /** Until the thread has it. */
  #fd: number | undefined;
  #facts: LinkFacts | undefined;
  #listener: LinkListener | undefined;
  #early: Uint8Array[] = [];
  #closed: { readonly failure: ThreadFailure | undefined } | undefined;

  constructor(id: number, attempt: Attempt, fd: number | undefined, say: (request: ThreadRequest) => void) {
    this.id = id;
    this.attempt = attempt;
    this.#fd = fd;
    this.#say = say;
  }

  get facts(): LinkFacts {
    if (this.#facts === undefined) throw new TypeError('the handshake is not done');
    return this.#facts;
  }

  write(data: string | Uint8Array): void {
    this.#request({ type: 'write', link: this.id, data });
  }

  async exportKeyingMaterial(length: number, label: string, context: Buffer): Promise<Buffer> {
    const answer = Promise.withResolvers<Buffer>();
    this.#exports.push(answer);
    if (this.#closed !== undefined) this.#lose();
    this.#request({ type: 'export', link: this.id, length, label, context: Uint8Array.from(context) });
    return await answer.promise;
  }

  listen(listener: LinkListener): void {
    this.#listener = listener;
    for (const chunk of this.#early.splice(0)) listener.data(chunk);
    if (this.#closed !== undefined) listener.closed(errorOf(this.#closed.failure));
  }

  end(): void {
    this.#request({ type: 'end', link: this.id });
  }

  destroy(): void {
    this.#request({ type: 'destroy', link: this.id });
  }

  hear(report: Exclude<ThreadReport, { type: 'asked' }>): void {
    switch (report.type) {
      case 'taken':
        this.#fd = undefined;
        return;
      case 'connected':
        this.attempt.connected();
        return;
      case 'secure':
        this.#facts = { ...report.facts, presented: report.facts.presented.map((der) => Buffer.from(der)) };
        this.attempt.secure(this);
        return;
      case 'data':
        if (this.#listener === undefined) this.#early.push(report.chunk);
        else this.#listener.data(report.chunk);
        return;
      case 'exported': {
        const { material } = report;
        const waiting = this.#exports.shift();
        if (material === undefined) waiting?.reject(new Error('the connection is gone'));
        else waiting?.resolve(Buffer.from(material.buffer, material.byteOffset, material.byteLength));
        return;
      }
      case 'closed':
        this.#end(report.failure);
        return;
    }
  }

  /** The thread is gone, and the connection with it. */
  lost(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#end({ message: 'the thread that worked on the connection has ended', code: '', reason: undefined });
  }

  #end(failure: ThreadFailure | undefined): void {
    this.#closed = { failure };
    this.#lose();
    if (this.#facts === undefined) this.attempt.failed(failure);
    else this.#listener?.closed(errorOf(failure));
    this.attempt.closed();
  }

  #lose(): void {
    for (const { reject } of this.#exports.splice(0)) reject(new Error('the connection is gone'));
  }

  #request(request: ThreadRequest): void {
    if (this.#closed === undefined) this.#say(request);
  }
}

function errorOf(failure: ThreadFailure | undefined): Error | undefined {
  return failure === undefined ? undefined : new Error(failure.message);
}
