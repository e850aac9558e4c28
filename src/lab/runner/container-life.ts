import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Container, ContainerStatus, Probe } from '../../api/kinds.ts';
import type { Ending, RunningContainer } from './container.ts';
import { type ContainerView, waitingView } from './pod-status.ts';
import { runProbe } from './probe-loop.ts';
import type { ProbeResult } from './prober.ts';

export interface LifeOptions {
  readonly container: Container;
  readonly restart: 'Always' | 'OnFailure' | 'Never';
  /** Starts the container's process, or says why that cannot be. */
  readonly start: (restarts: number) => Promise<RunningContainer | { readonly missing: string }>;
  /** What an earlier process started: gone on with in place of a first start. */
  readonly adopted?: Adopted;
  readonly tryProbe: (probe: Probe) => Promise<ProbeResult>;
  /** Seconds: the longest initial delay of a probe that is worth waiting for. */
  readonly longestDelay: number;
  readonly graceMs: number;
  readonly onChange: () => void;
  readonly log: Logger;
}

/** A container that runs, or has run, since before this process. */
export interface Adopted {
  readonly container: RunningContainer;
  /** Where it has ended. */
  readonly ending?: Ending;
  /** As the API had it last. */
  readonly status: ContainerStatus | undefined;
}

/** Doubles from the first to the last; a container that ran for longer than `healthyMs` starts over. */
const backOff = { firstMs: 500, lastMs: 30_000, healthyMs: 60_000 };
const retryConfigMs = 1000;

/** Starts a container, starts it again when it ends as its pod's restart policy says, and probes it. */
export class ContainerLife {
  view: ContainerView = waitingView;
  readonly #options: LifeOptions;
  readonly #stop = new AbortController();
  #running: RunningContainer | undefined;
  #done: Promise<void> | undefined;
  #firstStart: (() => void) | undefined;
  /** Resolves when the container has started for the first time (its startup probe included), or never will. */
  readonly begun: Promise<void>;

  constructor(options: LifeOptions) {
    this.#options = options;
    this.begun = new Promise((resolve) => {
      this.#firstStart = resolve;
    });
    if (options.adopted !== undefined) this.view = this.#viewOf(options.adopted);
  }

  #viewOf({ container, ending, status }: Adopted): ContainerView {
    const { restartCount: restarts = 0, ready = false, started = false } = status ?? {};
    const { startedAt } = container;
    if (ending === undefined)
      return { state: { kind: 'running', startedAt }, restarts, ready, started, finished: false };
    const state = { kind: 'terminated', ...ending, startedAt } as const;
    return { state, restarts, ready: false, started: false, finished: !this.#startsAgain(ending) };
  }

  #startsAgain({ exitCode }: Ending): boolean {
    return this.#options.restart === 'Always' || (this.#options.restart === 'OnFailure' && exitCode !== 0);
  }

  /** @returns When the container has ended for good: stopped, or finished as its restart policy allows. */
  run(): Promise<void> {
    this.#done ??= this.#live().finally(() => this.#firstStart?.());
    return this.#done;
  }

  /** Ends it, kindly for `graceMs`. */
  async stop(graceMs: number): Promise<void> {
    this.#stop.abort();
    await this.#running?.stop(graceMs);
    await this.#done;
  }

  async #live(): Promise<void> {
    const { signal } = this.#stop;
    let delay = backOff.firstMs;
    if (this.view.finished) return;
    const { state: before } = this.view;
    if (before.kind === 'terminated') this.#set(crashed(this.view, before));
    let adopted = before.kind === 'running' ? this.#options.adopted?.container : undefined;
    while (!signal.aborted) {
      const started =
        adopted ??
        (await this.#options.start(this.view.restarts).catch((error: Error) => ({ missing: error.message })));
      adopted = undefined;
      if ('missing' in started) {
        this.#set({ state: { kind: 'waiting', reason: 'CreateContainerConfigError', message: started.missing } });
        await sleep(retryConfigMs, undefined, { signal }).catch(() => undefined);
        continue;
      }
      const ending = await this.#oneLife(started);
      const { exitCode } = ending;
      const again = this.#startsAgain(ending);
      const state = {
        kind: 'terminated',
        exitCode,
        startedAt: started.startedAt,
        finishedAt: ending.finishedAt,
      } as const;
      this.#set({ state, ready: false, finished: !again, started: false });
      if (!again || signal.aborted) return;
      this.#options.log.info({ container: this.#options.container.name, exitCode }, 'container ended');
      if (Number(ending.finishedAt) - Number(started.startedAt) > backOff.healthyMs) delay = backOff.firstMs;
      await sleep(Math.min(delay, backOff.lastMs), undefined, { signal }).catch(() => undefined);
      if (signal.aborted) return;
      delay *= 2;
      this.#set(crashed(this.view, state));
    }
  }

  /** From the start of a process to its end. */
  async #oneLife(running: RunningContainer): Promise<Ending> {
    this.#running = running;
    const { container, longestDelay } = this.#options;
    const { startupProbe, readinessProbe, livenessProbe } = container;
    const probing = new AbortController();
    const probe = (wanted: Probe, initially: boolean, eager: boolean, onConclusion: (ok: boolean) => void) =>
      void runProbe({
        probe: wanted,
        initially,
        eager,
        longestDelay,
        signal: probing.signal,
        perform: () => this.#options.tryProbe(wanted),
        onConclusion,
      });
    // A container that fails its liveness is no longer ready either way: its end says so.
    const kill = (ok: boolean) => {
      if (!ok) void running.stop(this.#options.graceMs);
    };
    const begin = () => {
      // One that was adopted is as ready as it was.
      const { ready } = this.view;
      this.#set({ started: true, ready: ready || readinessProbe === undefined });
      this.#firstStart?.();
      if (readinessProbe !== undefined) probe(readinessProbe, ready, true, (now) => this.#set({ ready: now }));
      if (livenessProbe !== undefined) probe(livenessProbe, true, false, kill);
    };
    this.#set({ state: { kind: 'running', startedAt: running.startedAt }, finished: false });
    if (startupProbe === undefined || this.view.started) begin();
    else {
      const startup = new AbortController();
      probing.signal.addEventListener('abort', () => startup.abort());
      void runProbe({
        probe: startupProbe,
        eager: true,
        longestDelay,
        signal: startup.signal,
        perform: () => this.#options.tryProbe(startupProbe),
        onConclusion: (ok) => {
          startup.abort();
          if (ok) begin();
          else kill(false);
        },
      });
    }
    if (this.#stop.signal.aborted) void running.stop(0);
    const ending = await running.ended;
    probing.abort();
    this.#running = undefined;
    return ending;
  }

  #set(change: Partial<ContainerView>): void {
    this.view = { ...this.view, ...change };
    this.#options.onChange();
  }
}

/** What a container is between an end and its next start. */
function crashed(view: ContainerView, last: NonNullable<ContainerView['last']>): Partial<ContainerView> {
  return { state: { kind: 'waiting', reason: 'CrashLoopBackOff' }, last, restarts: view.restarts + 1 };
}
