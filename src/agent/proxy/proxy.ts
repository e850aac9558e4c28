import { createHash } from 'node:crypto';
import { closeSync } from 'node:fs';
import type { Logger } from 'pino';
import packageJson from '../../../package.json' with { type: 'json' };
import type { Datapath } from '../../datapath/datapath.ts';
import { ProxyPlumbing, type ProxyPlumbingOptions } from '../../datapath/proxy/plumbing.ts';
import { listenUnix } from '../../kernel/sockets.ts';
import type { PolicyImage } from '../../policy/image.ts';
import { type BuiltProxyImage, buildProxyImage } from '../../policy/proxy/build.ts';
import type { ProxyFlow, ProxyStats } from '../../policy/proxy/wire.ts';
import { ProxyLink, type ProxyLinkEvents } from './link.ts';
import type { ProxySecrets } from './secrets.ts';
import { spawnProxy } from './spawn.ts';

export interface ProxyOptions extends ProxyPlumbingOptions {
  readonly socketPath: string;
  /** Of requests that pass, one of so many is said, and so many a second of those that pass and of those that do not. */
  readonly every: number;
  readonly perSecond: number;
}

export interface ProxyDeps {
  readonly datapath: Datapath;
  readonly onFlows: (flows: readonly ProxyFlow[], lost: number) => void;
  /** Whether there is something for a proxy to do that the rules alone do not tell: `HintedPorts.refresh`. */
  readonly portsNeedIt: () => boolean;
  /** The Secrets that policy names, and what can be used of them. */
  readonly secrets: Pick<ProxySecrets, 'want' | 'settled' | 'usable' | 'problems'>;
  readonly logger: Logger;
}

/** What is to be said of the proxy. */
export interface ProxyState {
  readonly needed: boolean;
  readonly running: boolean;
  /** Why it is not as it should be. */
  readonly problem: string | undefined;
  readonly pid: number | undefined;
  readonly stats: ProxyStats | undefined;
  /** Why connections are closed whose TLS policy wants ended or opened. */
  readonly tls: readonly string[];
}

const { version } = packageJson;
/** How long what runs through a proxy may go on, once another has taken its place. */
const drainMs = 300_000;
/** How long a new one may take to read the policy, before connections come to it all the same: it holds them meanwhile. */
const appliedMs = 5000;
const firstDelayMs = 100;
const mostDelayMs = 10_000;
/** One that ended sooner after its start is not started again at once. */
const steadyMs = 5000;

/**
 * The node's proxy process: taken over where one runs, started when policy first needs one, started again when it dies, and
 * told what is in force. It goes on without this process, by what it was told last; where it is needed and absent the
 * datapath lets none of its connections pass.
 */
export class NodeProxy {
  readonly #options: ProxyOptions;
  readonly #deps: ProxyDeps;
  readonly #events: ProxyLinkEvents;
  #plumbing: ProxyPlumbing | undefined;
  #link: ProxyLink | undefined;
  /** Whether new connections come to the linked proxy. */
  #serves = false;
  #needed = false;
  #problem: string | undefined;
  /** What is in force, as the proxy is to have it. */
  #policy: { readonly revision: number; readonly built: BuiltProxyImage } | undefined;
  #rulesNeedIt = false;
  #conflicts: readonly string[] = [];
  /** Of the Secrets that the linked proxy was told last; undefined: what it has is from an agent before this one. */
  #toldSecrets: string | undefined;
  /** What the linked proxy was told last, and whether it has said that it has taken that. */
  #told: { readonly text: string; taken: boolean } | undefined;
  #onTaken: (() => void) | undefined;
  #refused: string | undefined;
  #busy: Promise<void> | undefined;
  #startedAt = Number.NEGATIVE_INFINITY;
  #delayMs = firstDelayMs;
  #retry: NodeJS.Timeout | undefined;
  #closed = false;
  #mtu: number;

  constructor(options: ProxyOptions, deps: ProxyDeps) {
    this.#options = options;
    this.#mtu = options.mtu;
    this.#deps = deps;
    this.#events = {
      onFlows: deps.onFlows,
      onApplied: (_, refused) => this.#taken(refused),
      onStats: (link) => {
        if (link === this.#link && link.draining) this.#replaceSoon('the proxy drains');
      },
      onGone: (link, error) => this.#gone(link, error),
    };
  }

  /** Takes over a proxy that runs. To be called before connections are judged anew. */
  async adopt(): Promise<void> {
    await this.#exclusively(async () => {
      const link = await ProxyLink.open(this.#options.socketPath, this.#events);
      if (link === undefined) return;
      this.#plumbing ??= await this.#open();
      // One that was started and never served was to be another's; it has no connections.
      if (!this.#plumbing.served) {
        link.tell({ type: 'drain', graceMs: 0 });
        link.close();
        return;
      }
      this.#welcome(link);
      this.#serves = true;
      this.#deps.logger.info({ pid: link.pid }, 'a running proxy was taken over');
    });
    if (this.#link !== undefined && this.#link.version !== version) await this.replace();
  }

  /** Another image is in force. */
  policyApplied(image: PolicyImage, revision: number): void {
    const built = buildProxyImage(image);
    this.#rulesNeedIt = built.needed;
    this.#conflicts = built.conflicts;
    this.#deps.secrets.want(built.secrets);
    this.#policy = { revision, built };
    this.#tell();
    this.look();
  }

  /** What can be used of Secrets is another by now: the proxy is told, where it does not know. */
  tellSecrets(): void {
    if (this.#link === undefined || !this.#deps.secrets.settled) return;
    const secrets = this.#deps.secrets.usable;
    const digest = createHash('sha256').update(JSON.stringify(secrets)).digest('hex');
    if (digest === this.#toldSecrets) return;
    this.#toldSecrets = digest;
    this.#link.tell({ type: 'secrets', secrets });
  }

  /** Looks whether a proxy is needed by now, and starts it. */
  look(): void {
    if (this.#closed) return;
    try {
      const ports = this.#deps.portsNeedIt();
      this.#needed = this.#rulesNeedIt || ports;
    } catch (error) {
      this.#problem = `ports could not be told the datapath: ${messageOf(error)}`;
    }
    if (this.#needed && this.#link === undefined && this.#retry === undefined) this.#startSoon(0);
  }

  /** Pods' packets may be so large from now on. @throws {KernelError} `Command` */
  async setMtu(mtu: number): Promise<void> {
    this.#mtu = mtu;
    await this.#plumbing?.setMtu(mtu);
  }

  /** Starts another proxy; the one that there is takes no new connections any more, and ends when its own have. */
  async replace(): Promise<void> {
    await this.#exclusively(async () => {
      const old = this.#link;
      await this.#start();
      if (old !== undefined && !old.draining) old.tell({ type: 'drain', graceMs: drainMs });
    });
  }

  get state(): ProxyState {
    const problem = this.#refused === undefined ? this.#problem : `it refuses its policy: ${this.#refused}`;
    return {
      needed: this.#needed,
      running: this.#link !== undefined && this.#serves,
      problem: problem ?? (this.#needed && this.#link === undefined ? 'it is being started' : undefined),
      pid: this.#link?.pid,
      stats: this.#link?.stats,
      tls: [...this.#deps.secrets.problems, ...this.#conflicts.map((pair) => `${pair} want TLS by different Secrets`)],
    };
  }

  /** Lets go of the proxy, which goes on. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#link?.close();
    await this.#busy?.catch(() => undefined);
    this.#link?.close();
    this.#plumbing?.close();
  }

  #open(): Promise<ProxyPlumbing> {
    return ProxyPlumbing.open({ ...this.#options, mtu: this.#mtu }, this.#deps.datapath);
  }

  async #start(): Promise<void> {
    this.#plumbing ??= await this.#open();
    const plumbing = this.#plumbing;
    const listenFds = plumbing.listen();
    try {
      const controlFd = listenUnix(this.#options.socketPath);
      try {
        await spawnProxy({ netns: this.#options.netns, controlFd, listenFds });
      } finally {
        closeSync(controlFd);
      }
      this.#startedAt = performance.now();
      const link = await ProxyLink.open(this.#options.socketPath, this.#events);
      if (link === undefined || this.#closed) {
        link?.close();
        return;
      }
      const taken = new Promise<void>((resolve) => {
        this.#onTaken = resolve;
      });
      this.#welcome(link);
      const timer = setTimeout(() => this.#onTaken?.(), appliedMs);
      await taken;
      clearTimeout(timer);
      plumbing.serve(listenFds);
      this.#serves = true;
      this.#deps.logger.info({ pid: link.pid }, 'the proxy was started');
    } finally {
      for (const fd of listenFds) closeSync(fd);
    }
  }

  #welcome(link: ProxyLink): void {
    this.#link = link;
    this.#told = undefined;
    this.#problem = undefined;
    this.#refused = undefined;
    const { every, perSecond } = this.#options;
    link.tell({ type: 'settings', every, perSecond });
    this.#toldSecrets = undefined;
    this.tellSecrets();
    this.#tell();
  }

  /** Says what is in force, once it has taken what it was told before: what came between is nothing to it. */
  #tell(): void {
    const [link, policy] = [this.#link, this.#policy];
    if (link === undefined || policy === undefined || this.#told?.taken === false) return;
    const { image } = policy.built;
    const text = JSON.stringify(image);
    if (this.#told?.text === text) return;
    this.#told = { text, taken: false };
    link.tell({ type: 'policy', revision: policy.revision, image });
  }

  #taken(refused: string | undefined): void {
    if (this.#told !== undefined) this.#told.taken = true;
    if (refused !== undefined)
      this.#deps.logger.error({ refused }, 'the proxy refuses its policy; the one before stays');
    this.#refused = refused;
    this.#onTaken?.();
    this.#onTaken = undefined;
    this.#tell();
  }

  #gone(link: ProxyLink, error: Error | undefined): void {
    if (link !== this.#link) return;
    this.#link = undefined;
    this.#serves = false;
    if (this.#closed) return;
    const soon = performance.now() - this.#startedAt < steadyMs;
    this.#delayMs = soon ? Math.min(mostDelayMs, this.#delayMs * 2) : firstDelayMs;
    this.#problem = `it has ended${error === undefined ? '' : ` (${error.message})`}`;
    this.#deps.logger.warn({ pid: link.pid, ...(error === undefined ? {} : { err: error }) }, 'the proxy has ended');
    if (this.#needed) this.#startSoon(soon ? this.#delayMs : 0);
  }

  #startSoon(delayMs: number): void {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => {
      this.#exclusively(async () => {
        if (this.#link === undefined && !this.#closed) await this.#start();
      })
        .catch((error: unknown) => {
          this.#problem = messageOf(error);
          this.#deps.logger.error({ err: error }, 'the proxy cannot be started');
        })
        .finally(() => {
          this.#retry = undefined;
          if (this.#link !== undefined || this.#closed || !this.#needed) return;
          this.#delayMs = Math.min(mostDelayMs, this.#delayMs * 2);
          this.#startSoon(this.#delayMs);
        });
    }, delayMs);
  }

  #replaceSoon(why: string): void {
    if (this.#closed || this.#busy !== undefined) return;
    this.#deps.logger.info({}, `${why}: another takes its place`);
    this.replace().catch((error: unknown) => {
      this.#problem = messageOf(error);
      this.#deps.logger.error({ err: error }, 'the proxy cannot be replaced');
    });
  }

  /** One change of process after the other. */
  async #exclusively(task: () => Promise<void>): Promise<void> {
    while (this.#busy !== undefined) await this.#busy.catch(() => undefined);
    const running = task();
    this.#busy = running;
    try {
      await running;
    } finally {
      this.#busy = undefined;
    }
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
