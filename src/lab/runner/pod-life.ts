import { rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { isApiError } from '../../api/client/error.ts';
import type { Api } from '../../api/client/types.ts';
import { type Container, kinds, type Live, type Pod } from '../../api/kinds.ts';
import { removeCgroup } from '../../kernel/cgroup.ts';
import { run } from '../../kernel/command.ts';
import { isOver } from '../pod-phase.ts';
import { enterCommand, RunningContainer, recordOf } from './container.ts';
import { type Adopted, ContainerLife } from './container-life.ts';
import { containerSpec, podPaths } from './container-spec.ts';
import type { NodeContext } from './context.ts';
import { kindOfImage } from './images.ts';
import { PodReports } from './pod-reports.ts';
import { PodSandbox } from './pod-sandbox.ts';
import { podStatus } from './pod-status.ts';
import { tryProbe } from './probe-loop.ts';
import type { ProbeResult } from './prober.ts';
import type { Sandbox } from './sandbox.ts';
import { loadSources } from './sources.ts';

type Restart = 'Always' | 'OnFailure' | 'Never';

/** What a container finds when it starts. */
interface Circumstances {
  readonly sandbox: Sandbox;
  readonly restart: Restart;
  readonly adopted: Adopted | undefined;
}

export interface PodLifeDeps {
  readonly api: Api;
  readonly log: Logger;
  /** Bounds how many sandboxes are being made at once. */
  readonly turn: <T>(job: () => Promise<T>) => Promise<T>;
}

const retryMs = 5000;
/** Seconds. A stand-in needs no warm-up; its manifest was written for what it stands in for. */
const standInDelay = 1;

/** One pod on its node, from the first sight of it to its last trace. What a kubelet does. */
export class PodLife {
  readonly #node: NodeContext;
  readonly #deps: PodLifeDeps;
  readonly #log: Logger;
  readonly #startTime: Date;
  readonly #end = new AbortController();
  /** Ends the present sandbox only: its node was restarted. */
  #reset = new AbortController();
  #pod: Live<Pod>;
  readonly #sandbox: PodSandbox;
  readonly #reports: PodReports;
  #lives: { init: Map<string, ContainerLife>; main: Map<string, ContainerLife> } = { init: new Map(), main: new Map() };
  #inApi = true;
  /** Resolves when nothing of the pod is left on the node. Never rejects. */
  readonly done: Promise<void>;

  constructor(pod: Live<Pod>, node: NodeContext, deps: PodLifeDeps) {
    this.#pod = pod;
    this.#node = node;
    this.#deps = deps;
    this.#log = deps.log.child({ pod: `${pod.metadata.namespace}/${pod.metadata.name}`, node: node.name });
    const { startTime } = pod.status ?? {};
    this.#startTime = startTime === undefined ? new Date() : new Date(startTime);
    const log = this.#log;
    const { api, turn } = deps;
    this.#reports = new PodReports({
      ...{ api, log },
      news: () => (this.#inApi ? { pod: this.#pod, status: this.#status() } : undefined),
      onTold: (told) => {
        if (told.metadata.uid === this.#pod.metadata.uid) this.#pod = told;
      },
    });
    const onChange = () => this.#reports.send();
    this.#sandbox = new PodSandbox(pod, node, { directory: this.#directory, log, turn, onChange });
    if (pod.metadata.deletionTimestamp !== undefined) this.#end.abort();
    this.done = this.#live();
  }

  /** The API has a newer version. */
  update(pod: Live<Pod>): void {
    this.#pod = pod;
    if (pod.metadata.deletionTimestamp !== undefined) this.#end.abort();
  }

  /** The API has it no longer. */
  vanish(): void {
    this.#inApi = false;
    this.#end.abort();
  }

  /** Its node was switched off and on: processes and namespace are gone, and nobody told the CNI plugin. */
  restart(): void {
    this.#reset.abort();
  }

  get #directory(): string {
    return podPaths(this.#node, this.#pod.metadata.uid).directory;
  }

  async #live(): Promise<void> {
    try {
      if (!this.#sandbox.adopting) await this.#sandbox.remove();
      // What is over stays over, whoever runs the node now.
      if (isOver(this.#pod)) await aborted(this.#end.signal);
      while (!this.#end.signal.aborted) {
        this.#reset = new AbortController();
        const signal = AbortSignal.any([this.#end.signal, this.#reset.signal]);
        const finished = await this.#incarnate(signal).catch(async (error: unknown) => {
          this.#log.warn({ err: error }, 'will start it again');
          await sleep(retryMs, undefined, { signal }).catch(() => undefined);
          return false;
        });
        const restarted = this.#reset.signal.aborted && !this.#end.signal.aborted;
        await this.#stopContainers(restarted ? 0 : this.#graceMs());
        if (restarted) this.#sandbox.lose();
        else await this.#sandbox.remove();
        if (finished) await aborted(this.#end.signal);
      }
      await this.#sandbox.remove();
      await this.#forget();
    } catch (error) {
      this.#log.error({ err: error }, 'the pod’s end went wrong');
    }
  }

  /** @returns Whether all its containers have ended for good, as those of a job do. */
  async #incarnate(signal: AbortSignal): Promise<boolean> {
    const { adopting } = this.#sandbox;
    const adopted = adopting ? await this.#adoptContainers() : new Map<string, Adopted>();
    if (!adopting) await this.#sandbox.make(signal);
    this.#sandbox.adopted();
    const sandbox = this.#sandbox.present;
    if (sandbox === undefined) return false;
    const { initContainers = [], containers, restartPolicy = 'Always' } = this.#pod.spec;
    const lives = (list: readonly Container[], policy: Restart) =>
      new Map(
        list.map((each) => {
          const restart = sidecar(each) ? 'Always' : policy;
          return [each.name, this.#newLife(each, { sandbox, restart, adopted: adopted.get(each.name) })];
        }),
      );
    this.#lives = {
      init: lives(initContainers, restartPolicy === 'Never' ? 'Never' : 'OnFailure'),
      main: lives(containers, restartPolicy),
    };
    for (const container of initContainers) {
      const life = this.#lives.init.get(container.name);
      const ended = life?.run();
      await Promise.race([sidecar(container) ? life?.begun : ended, aborted(signal)]);
      if (signal.aborted) return false;
      if (life?.view.state.kind === 'terminated' && life.view.state.exitCode !== 0) return true;
    }
    await Promise.race([Promise.all([...this.#lives.main.values()].map((life) => life.run())), aborted(signal)]);
    return !signal.aborted;
  }

  /** By name, those that an earlier daemon has begun. */
  async #adoptContainers(): Promise<Map<string, Adopted>> {
    const { spec, status } = this.#pod;
    const statuses = [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])];
    const { directory, cgroup } = podPaths(this.#node, this.#pod.metadata.uid);
    const found = new Map<string, Adopted>();
    for (const { name } of [...(spec.initContainers ?? []), ...spec.containers]) {
      const adopted = await RunningContainer.adopt(`${directory}/${name}`, `${cgroup}/${name}`);
      if (adopted !== undefined) found.set(name, { ...adopted, status: statuses.find((each) => each.name === name) });
    }
    return found;
  }

  #newLife(container: Container, { sandbox, restart, adopted }: Circumstances): ContainerLife {
    const node = this.#node;
    const address = sandbox.addresses[0] ?? node.addresses[0];
    const standIn = kindOfImage(container.image ?? '') === 'standin';
    return new ContainerLife({
      container,
      restart,
      ...(adopted === undefined ? {} : { adopted }),
      longestDelay: standIn ? standInDelay : Number.POSITIVE_INFINITY,
      graceMs: this.#graceMs(),
      log: this.#log,
      onChange: () => this.#reports.send(),
      start: async () => {
        // Anew each time: what was missing may be there now.
        const sources = await loadSources(this.#deps.api, this.#pod.metadata.namespace, this.#pod.spec);
        const spec = containerSpec(node, this.#pod, container, sandbox, sources);
        return 'missing' in spec ? spec : await RunningContainer.start(spec);
      },
      tryProbe: async (probe) => {
        if (address === undefined) return { ok: false, ms: 0, error: 'the pod has no address' };
        const exec = (command: readonly string[], timeoutMs: number) => this.#exec(container, command, timeoutMs);
        return await tryProbe(probe, { container, address, prober: node.prober, exec });
      },
    });
  }

  async #exec(container: Container, command: readonly string[], timeout: number): Promise<ProbeResult> {
    const record = recordOf(`${this.#directory}/${container.name}`);
    if (record === undefined) return { ok: false, ms: 0, error: 'the container is not running' };
    const [file = '', ...args] = enterCommand(record, command);
    return await run(file, args, { timeout }).then(
      () => ({ ok: true, ms: 0 }),
      (error: Error) => ({ ok: false, ms: 0, error: error.message }),
    );
  }

  async #stopContainers(graceMs: number): Promise<void> {
    await Promise.all([...this.#lives.main.values(), ...this.#lives.init.values()].map((life) => life.stop(graceMs)));
  }

  /** Removes what the node has of the pod, then the object itself: its name is free when this is done. */
  async #forget(): Promise<void> {
    const { namespace, name, uid } = this.#pod.metadata;
    const { directory, cgroup } = podPaths(this.#node, uid);
    await removeCgroup(cgroup);
    rmSync(directory, { recursive: true, force: true });
    await this.#reports.settled();
    if (!this.#inApi) return;
    await this.#deps.api
      .delete(kinds.Pod, { namespace, name }, { gracePeriodSeconds: 0, uid })
      .catch((error: unknown) => {
        if (!isApiError(error, 'NotFound', 'Conflict')) throw error;
      });
  }

  #graceMs(): number {
    if (!this.#inApi) return 0;
    const { deletionGracePeriodSeconds } = this.#pod.metadata;
    return (deletionGracePeriodSeconds ?? this.#pod.spec.terminationGracePeriodSeconds ?? 30) * 1000;
  }

  #status() {
    const views = (lives: Map<string, ContainerLife>) => new Map([...lives].map(([name, life]) => [name, life.view]));
    const { present, trouble } = this.#sandbox;
    return podStatus({
      pod: this.#pod,
      hostAddresses: this.#node.addresses,
      addresses: present?.addresses ?? [],
      hasSandbox: present !== undefined,
      init: views(this.#lives.init),
      main: views(this.#lives.main),
      ...(trouble === undefined ? {} : { trouble }),
      startTime: this.#startTime,
      now: new Date(),
    });
  }
}

function sidecar(container: Container): boolean {
  return container.restartPolicy === 'Always';
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
