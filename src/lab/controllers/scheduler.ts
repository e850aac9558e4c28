import type { Logger } from 'pino';
import { z } from 'zod';
import { isApiError } from '../../api/client/error.ts';
import type { Api, ObjectStore } from '../../api/client/types.ts';
import { type KubeObject, type Live, type Node, objectKey, type Pod, type Resource } from '../../api/kinds.ts';
import { chooseNode } from './placement.ts';
import { WorkQueue } from './queue.ts';

export interface SchedulerDeps {
  readonly api: Api;
  readonly pods: ObjectStore<Pod>;
  readonly nodes: ObjectStore<Node>;
  readonly log: Logger;
}

/** Gives every pod without a node one. */
export class Scheduler {
  readonly #deps: SchedulerDeps;
  /** Chosen, and not in the store yet: or a burst of pods would all go to the node that was emptiest before it. */
  readonly #assumed = new Map<string, Live<Pod>>();
  readonly #unplaced = new Set<string>();

  constructor(deps: SchedulerDeps) {
    this.#deps = deps;
  }

  run(signal: AbortSignal): void {
    const { log, pods, nodes } = this.#deps;
    const queue = new WorkQueue({ name: 'scheduler', log, signal, workers: 8 }, (key) => this.#place(key));
    pods.onChange(({ kind, entry }) => {
      const { object, key } = entry;
      const { uid = '' } = entry.raw.metadata;
      if (kind === 'delete' || object?.spec.nodeName !== undefined) {
        this.#assumed.delete(uid);
        this.#unplaced.delete(key);
      } else if (object !== undefined) queue.add(key);
    });
    nodes.onChange(() => {
      for (const key of this.#unplaced) queue.add(key);
    });
  }

  async #place(key: string): Promise<void> {
    const { api, pods, nodes, log } = this.#deps;
    const pod = pods.get(key)?.object;
    if (pod === undefined || pod.spec.nodeName !== undefined || this.#assumed.has(pod.metadata.uid)) return;
    if (pod.metadata.deletionTimestamp !== undefined) return;
    const placed = pods.objects().filter(({ spec }) => spec.nodeName !== undefined);
    const choice = chooseNode(pod, nodes.objects(), [...placed, ...this.#assumed.values()]);
    if ('reason' in choice) {
      this.#unplaced.add(key);
      log.warn({ pod: key }, choice.reason);
      return;
    }
    this.#assumed.set(pod.metadata.uid, { ...pod, spec: { ...pod.spec, nodeName: choice.node } });
    try {
      await bindPod(api, pod, choice.node);
      log.info({ pod: objectKey(pod), node: choice.node }, 'placed');
    } catch (error) {
      this.#assumed.delete(pod.metadata.uid);
      if (!isApiError(error, 'NotFound', 'Conflict')) throw error;
    }
  }
}

interface Binding extends KubeObject {
  target: { apiVersion: string; kind: string; name: string };
}

/** A binding is created below its pod's path; the answer to it is a Status, which is no Binding, and well all the same. */
async function bindPod(api: Api, { metadata }: Live<Pod>, node: string): Promise<void> {
  const { namespace, name, uid } = metadata;
  const resource: Resource<Binding> = {
    group: '',
    version: 'v1',
    kind: 'Binding',
    plural: `pods/${name}/binding`,
    singular: 'binding',
    namespaced: true,
    shortNames: [],
    categories: [],
    status: false,
    schema: z.any(),
  };
  const target = { apiVersion: 'v1', kind: 'Node', name: node };
  const binding = { apiVersion: 'v1', kind: 'Binding', metadata: { namespace, name, uid }, target };
  await api.create(resource, binding).catch((error: unknown) => {
    if (!isApiError(error, 'Malformed')) throw error;
  });
}
