import { isDeepStrictEqual } from 'node:util';
import type { Logger } from 'pino';
import { isApiError } from '../../api/client/error.ts';
import type { Api, ObjectStore } from '../../api/client/types.ts';
import { type Deployment, kinds, type Live, type Pod } from '../../api/kinds.ts';
import { WorkQueue } from './queue.ts';
import { nextStep, templateHash, templateHashLabel } from './rollout.ts';

export interface DeploymentsDeps {
  readonly api: Api;
  readonly deployments: ObjectStore<Deployment>;
  /** With an index {@link ownerIndex} by {@link ownersOf}. */
  readonly pods: ObjectStore<Pod>;
  readonly log: Logger;
}

export const ownerIndex = 'owner';

/** UIDs of a pod's controlling owners: one at most. */
export function ownersOf({ metadata }: { metadata: Pod['metadata'] }): string[] {
  return (metadata.ownerReferences ?? []).filter(({ controller }) => controller === true).map(({ uid }) => uid);
}

/** How long the store may be behind our own writes before they are taken for lost. */
const expectationMs = 5000;

/**
 * Makes the pods of Deployments, without ReplicaSets between: a lab keeps no history to go back to. Deleting a
 * deployment's pods when it goes is the API's garbage collector's.
 */
export class Deployments {
  readonly #deps: DeploymentsDeps;
  /** Deployment's UID → names of pods that were created or deleted and that the store has not caught up with. */
  readonly #expected = new Map<string, { created: Set<string>; removed: Set<string>; since: number }>();

  constructor(deps: DeploymentsDeps) {
    this.#deps = deps;
  }

  run(signal: AbortSignal): void {
    const { deployments, pods, log } = this.#deps;
    const queue = new WorkQueue({ name: 'deployments', log, signal, workers: 4 }, async (key) => {
      if (!(await this.#reconcile(key))) setTimeout(() => queue.add(key), expectationMs).unref();
    });
    const keys = new Map<string, string>();
    deployments.onChange(({ kind, entry }) => {
      const { uid = '' } = entry.raw.metadata;
      if (kind === 'delete') {
        keys.delete(uid);
        this.#expected.delete(uid);
      } else keys.set(uid, entry.key);
      queue.add(entry.key);
    });
    pods.onChange(({ kind, entry }) => {
      for (const owner of ownersOf(entry.raw)) {
        const expected = this.#expected.get(owner);
        expected?.created.delete(entry.key);
        if (kind === 'delete' || entry.raw.metadata.deletionTimestamp !== undefined)
          expected?.removed.delete(entry.key);
        const key = keys.get(owner);
        if (key !== undefined) queue.add(key);
      }
    });
  }

  /** @returns Whether the deployment has had its turn; else its own writes have not come back yet. */
  async #reconcile(key: string): Promise<boolean> {
    const { api, deployments, pods } = this.#deps;
    const deployment = deployments.get(key)?.object;
    if (deployment === undefined || deployment.metadata.deletionTimestamp !== undefined) return true;
    const { uid, namespace, name } = deployment.metadata;
    if (!this.#caughtUp(uid)) return false;
    const own = pods.byIndex(ownerIndex, uid).flatMap(({ object }) => (object === undefined ? [] : [object]));
    const step = nextStep(deployment, own, new Date());
    const expected = { created: new Set<string>(), removed: new Set<string>(), since: Date.now() };
    this.#expected.set(uid, expected);
    await Promise.all([
      ...step.remove.map(async ({ metadata }) => {
        expected.removed.add(`${metadata.namespace}/${metadata.name}`);
        await api.delete(kinds.Pod, metadata, { uid: metadata.uid }).catch((error: unknown) => {
          expected.removed.delete(`${metadata.namespace}/${metadata.name}`);
          if (!isApiError(error, 'NotFound', 'Conflict')) throw error;
        });
      }),
      ...Array.from({ length: step.create }, async () => {
        const pod = await api.create(kinds.Pod, podOf(deployment), { fieldManager: 'myelin-lab' });
        const podKey = `${pod.metadata.namespace}/${pod.metadata.name}`;
        // The watch may have been quicker than the answer.
        if (pods.get(podKey) === undefined) expected.created.add(podKey);
      }),
    ]);
    if (isDeepStrictEqual({ ...deployment.status }, step.status)) return true;
    await api
      .patchStatus(
        kinds.Deployment,
        { namespace, name },
        { type: 'merge', patch: { status: step.status } },
        { fieldManager: 'myelin-lab' },
      )
      .catch((error: unknown) => {
        if (!isApiError(error, 'NotFound')) throw error;
      });
    return true;
  }

  #caughtUp(uid: string): boolean {
    const expected = this.#expected.get(uid);
    if (expected === undefined || expected.created.size + expected.removed.size === 0) return true;
    return Date.now() - expected.since > expectationMs;
  }
}

function podOf({ metadata, spec }: Live<Deployment>): Pod {
  const { template } = spec;
  const hash = templateHash(template);
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      namespace: metadata.namespace,
      generateName: `${metadata.name}-${hash}-`,
      labels: { ...template.metadata?.labels, [templateHashLabel]: hash },
      ...(template.metadata?.annotations === undefined ? {} : { annotations: template.metadata.annotations }),
      ownerReferences: [
        {
          apiVersion: 'apps/v1',
          kind: 'Deployment',
          name: metadata.name,
          uid: metadata.uid,
          controller: true,
          blockOwnerDeletion: true,
        },
      ],
    },
    spec: template.spec,
  };
}
