import { rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Api, Change, ObjectStore } from '../../api/client/types.ts';
import type { Live, Pod } from '../../api/kinds.ts';
import { removeCgroup } from '../../kernel/cgroup.ts';
import { LabError } from '../error.ts';
import { podPaths } from './container-spec.ts';
import type { NodeContext } from './context.ts';
import { PodLife } from './pod-life.ts';
import { removeSandbox, sandboxFor } from './sandbox.ts';
import { listSandboxRecords, type SandboxRecord } from './sandbox-record.ts';

export interface PodRunnerOptions {
  readonly nodes: readonly NodeContext[];
}

export interface PodRunnerDeps {
  readonly api: Api;
  readonly pods: ObjectStore<Pod>;
  readonly log: Logger;
}

/** How many sandboxes are made at once: each is a handful of processes, and there are two cores. */
const sandboxesAtOnce = 4;
const sweepRetryMs = 2000;

/** Runs the pods that are bound to the lab's nodes: the kubelets of all of them in one process. */
export class PodRunner {
  readonly #nodes: ReadonlyMap<string, NodeContext>;
  readonly #deps: PodRunnerDeps;
  /** By UID: a name can come back while its last owner is still on its way out. */
  readonly #lives = new Map<string, { node: string; life: PodLife }>();
  readonly #waiting: (() => void)[] = [];
  #active = 0;
  #stop: (() => void) | undefined;

  constructor({ nodes }: PodRunnerOptions, deps: PodRunnerDeps) {
    this.#nodes = new Map(nodes.map((node) => [node.name, node]));
    this.#deps = deps;
  }

  /** The pods of the API must be known: whatever else an earlier daemon left is removed. */
  start(): void {
    this.#stop = this.#deps.pods.onChange((change) => this.#observe(change));
    const directories = new Set([...this.#nodes.values()].map(({ podsDirectory }) => podsDirectory));
    for (const directory of directories)
      for (const record of listSandboxRecords(directory))
        if (!this.#lives.has(record.pod.uid)) void this.#sweep(record);
  }

  /** A pod that went from the API while no daemon was there. */
  async #sweep({ node: name, pod, sandbox, attempt }: SandboxRecord): Promise<void> {
    const node = this.#nodes.get(name);
    if (node === undefined) return;
    const { directory, cgroup } = podPaths(node, pod.uid);
    const log = this.#deps.log.child({ pod: `${pod.namespace}/${pod.name}`, node: name });
    log.info('an earlier daemon had this pod, and it is gone');
    for (;;)
      try {
        await removeCgroup(cgroup);
        const left = sandbox ?? sandboxFor(node, pod, attempt);
        // Its node's own namespace is nobody's to remove.
        if (left.id !== '') await removeSandbox(node, left, pod);
        rmSync(directory, { recursive: true, force: true });
        return;
      } catch (err) {
        log.warn({ err }, 'what is left of it cannot be removed yet');
        await sleep(sweepRetryMs, undefined, { ref: false });
      }
  }

  /** Ends the watching and the probers; the pods' processes are left as they are. */
  close(): void {
    this.#stop?.();
    for (const node of this.#nodes.values()) node.prober.close();
  }

  /**
   * Does to a node's pods what a power cut does: processes and namespaces are gone at once, then all is started again.
   * @throws {LabError} `NoSuchNode`
   */
  restartNode(name: string): void {
    if (!this.#nodes.has(name)) throw new LabError('NoSuchNode', `there is no node ${name}`);
    for (const { node, life } of this.#lives.values()) if (node === name) life.restart();
  }

  #observe({ kind, entry }: Change<Pod>): void {
    const pod = entry.object;
    const { uid = '' } = entry.raw.metadata;
    const known = this.#lives.get(uid);
    if (kind === 'delete') known?.life.vanish();
    else if (pod !== undefined && known !== undefined) known.life.update(pod);
    else if (pod !== undefined) this.#adopt(pod);
  }

  #adopt(pod: Live<Pod>): void {
    const { uid } = pod.metadata;
    const node = this.#nodes.get(pod.spec.nodeName ?? '');
    if (node === undefined) return;
    const { api, log } = this.#deps;
    const life = new PodLife(pod, node, { api, log, turn: (job) => this.#turn(job) });
    this.#lives.set(uid, { node: node.name, life });
    void life.done.then(() => this.#lives.delete(uid));
  }

  async #turn<T>(job: () => Promise<T>): Promise<T> {
    if (this.#active >= sandboxesAtOnce) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#active++;
    try {
      return await job();
    } finally {
      // The place is handed on as it is, so nobody can slip in between.
      const next = this.#waiting.shift();
      if (next === undefined) this.#active--;
      else next();
    }
  }
}
