import { createHash } from 'node:crypto';
import type { Condition, Deployment, Live, Pod } from '../../api/kinds.ts';
import { isOver, isReady } from '../pod-phase.ts';
import { timestamp } from '../runner/pod-status.ts';

export const templateHashLabel = 'pod-template-hash';

export interface RolloutStep {
  /** How many pods of the present template to make. */
  readonly create: number;
  readonly remove: readonly Live<Pod>[];
  readonly status: NonNullable<Deployment['status']>;
}

/** A short name for a pod template: equal templates have equal ones. */
export function templateHash(template: Deployment['spec']['template']): string {
  return createHash('sha256')
    .update(JSON.stringify(sorted(template)))
    .digest('hex')
    .slice(0, 10);
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([key, each]) => [key, sorted(each)]));
}

/**
 * The next step towards what a Deployment asks for. Old pods go as new ones become ready, within its strategy's bounds.
 * @param pods Those that the deployment owns.
 */
export function nextStep(deployment: Deployment, pods: readonly Live<Pod>[], now: Date): RolloutStep {
  const { spec } = deployment;
  const { replicas = 1, paused = false } = spec;
  const hash = templateHash(spec.template);
  const alive = pods.filter((pod) => pod.metadata.deletionTimestamp === undefined && !isOver(pod));
  const over = pods.filter((pod) => pod.metadata.deletionTimestamp === undefined && isOver(pod));
  const current = alive.filter((pod) => pod.metadata.labels?.[templateHashLabel] === hash);
  const old = alive.filter((pod) => pod.metadata.labels?.[templateHashLabel] !== hash);
  const ready = alive.filter(isReady);
  const { surge, unavailable } = bounds(deployment, replicas);
  const recreate = spec.strategy?.type === 'Recreate';
  const terminating = pods.length - alive.length - over.length;

  let create = paused ? 0 : Math.max(0, Math.min(replicas - current.length, replicas + surge - alive.length));
  if (recreate && (old.length > 0 || terminating > 0)) create = 0;
  const surplus = byWorth(current).slice(replicas);
  // An old pod that is not ready serves nobody; a ready one may go as long as enough others are.
  const spare = recreate ? old.length : Math.max(0, ready.length - (replicas - unavailable));
  const idle = old.filter((pod) => !isReady(pod));
  const busy = old.filter(isReady).slice(0, spare);
  const leaving = paused ? [] : recreate ? old : [...idle, ...busy];

  return {
    create,
    remove: [...over, ...surplus, ...leaving],
    status: statusOf(deployment, { alive, current, ready, unavailable, terminating }, now),
  };
}

/** Ready before not ready, older before newer: the order in which pods are worth keeping. */
function byWorth(pods: readonly Live<Pod>[]): Live<Pod>[] {
  const age = (pod: Live<Pod>) => pod.metadata.creationTimestamp ?? '';
  return pods.toSorted((a, b) => Number(isReady(b)) - Number(isReady(a)) || age(a).localeCompare(age(b)));
}

function bounds({ spec }: Deployment, replicas: number): { surge: number; unavailable: number } {
  const { maxSurge = '25%', maxUnavailable = '25%' } = spec.strategy?.rollingUpdate ?? {};
  const share = (value: number | string, round: (n: number) => number) =>
    typeof value === 'number' ? value : round((Number.parseInt(value, 10) / 100) * replicas);
  const surge = share(maxSurge, Math.ceil);
  const unavailable = share(maxUnavailable, Math.floor);
  // Both at zero would stand still for ever; Kubernetes allows one pod to be away then.
  return { surge, unavailable: surge === 0 && unavailable === 0 ? 1 : unavailable };
}

interface Counted {
  readonly alive: readonly Pod[];
  readonly current: readonly Pod[];
  readonly ready: readonly Pod[];
  readonly unavailable: number;
  readonly terminating: number;
}

function statusOf(deployment: Deployment, counted: Counted, now: Date): NonNullable<Deployment['status']> {
  const { spec, metadata, status } = deployment;
  const { alive, current, ready, unavailable, terminating } = counted;
  const { replicas = 1 } = spec;
  const condition = (type: string, holds: boolean, reason: string, message: string): Condition => {
    const value = holds ? 'True' : 'False';
    const before = status?.conditions?.find((each) => each.type === type && each.status === value);
    return { type, status: value, reason, message, lastTransitionTime: before?.lastTransitionTime ?? timestamp(now) };
  };
  const available = ready.length >= replicas - unavailable;
  const complete = current.filter(isReady).length >= replicas && alive.length === current.length;
  return {
    ...(metadata.generation === undefined ? {} : { observedGeneration: metadata.generation }),
    replicas: alive.length,
    updatedReplicas: current.length,
    readyReplicas: ready.length,
    availableReplicas: ready.length,
    unavailableReplicas: Math.max(0, replicas - ready.length),
    terminatingReplicas: terminating,
    conditions: [
      available
        ? condition('Available', true, 'MinimumReplicasAvailable', 'Deployment has minimum availability.')
        : condition('Available', false, 'MinimumReplicasUnavailable', 'Deployment does not have minimum availability.'),
      complete
        ? condition('Progressing', true, 'NewReplicaSetAvailable', 'All pods of the present template are ready.')
        : condition('Progressing', true, 'ReplicaSetUpdated', 'Pods of the present template are on their way.'),
    ],
  };
}
