import type { Live, Node, Pod } from '../api/kinds.ts';
import { isReady } from './pod-phase.ts';
import { isRunning } from './process.ts';
import type { LabState } from './state.ts';

/** What `myelin lab status` says; with `-o json`, exactly this. */
export interface LabStatus {
  readonly lab: string;
  readonly createdAt: string;
  readonly complete: boolean;
  /** Why the API does not answer; nodes and pods are empty then. */
  readonly unreachable?: string;
  readonly nodes: readonly NodeStatus[];
  readonly pods: readonly PodSummary[];
  /** API server, controller, daemon, agents. */
  readonly processes: readonly {
    readonly name: string;
    readonly pid: number;
    readonly running: boolean;
    readonly log: string;
  }[];
}

export interface NodeStatus {
  readonly name: string;
  readonly addresses: readonly string[];
  readonly podCidrs: readonly string[];
  readonly agentRunning: boolean;
  readonly pods: number;
}

export interface PodSummary {
  readonly namespace: string;
  readonly name: string;
  readonly ready: boolean;
  /** Ready containers of how many. */
  readonly containers: readonly [number, number];
  /** Kubernetes' phase, or what stands in its way: `CrashLoopBackOff`, `Terminating`. */
  readonly state: string;
  readonly restarts: number;
  readonly node: string;
  readonly addresses: readonly string[];
  /** Unix milliseconds. */
  readonly since: number;
  readonly message?: string;
}

/** Puts together what the API and the machine say. Pure but for looking whether processes run. */
export function labStatus(state: LabState, nodes: readonly Live<Node>[], pods: readonly Live<Pod>[]): LabStatus {
  const processes = state.processes.map((process) => ({
    name: process.name,
    pid: process.pid,
    running: isRunning(process),
    log: process.log,
  }));
  return {
    lab: state.name,
    createdAt: state.createdAt,
    complete: state.complete,
    nodes: nodes.map(({ metadata, spec, status }) => ({
      name: metadata.name,
      addresses: (status?.addresses ?? []).filter(({ type }) => type === 'InternalIP').map(({ address }) => address),
      podCidrs: spec?.podCIDRs ?? [],
      agentRunning: processes.some(({ name, running }) => name === `agent/${metadata.name}` && running),
      pods: pods.filter((pod) => pod.spec.nodeName === metadata.name).length,
    })),
    pods: pods.map(summarize),
    processes,
  };
}

function summarize(pod: Live<Pod>): PodSummary {
  const { metadata, spec, status = {} } = pod;
  const containers = status.containerStatuses ?? [];
  return {
    namespace: metadata.namespace,
    name: metadata.name,
    ready: isReady(pod),
    containers: [containers.filter(({ ready }) => ready === true).length, spec.containers.length],
    state: stateOf(pod),
    restarts: containers.reduce((sum, { restartCount = 0 }) => sum + restartCount, 0),
    node: spec.nodeName ?? '',
    addresses: (status.podIPs ?? []).map(({ ip = '' }) => ip),
    since: Date.parse(metadata.creationTimestamp ?? ''),
    ...(status.message === undefined ? {} : { message: status.message }),
  };
}

/** The one word that says most. */
function stateOf({ metadata, spec, status = {} }: Live<Pod>): string {
  if (metadata.deletionTimestamp !== undefined) return 'Terminating';
  if (status.reason !== undefined) return status.reason;
  const init = status.initContainerStatuses ?? [];
  const done = init.filter(({ state }) => isRecord(state?.terminated) && state.terminated.exitCode === 0).length;
  if (done < init.length && status.phase === 'Pending') return `Init:${done}/${init.length}`;
  for (const { state } of status.containerStatuses ?? []) {
    const reason = isRecord(state?.waiting) ? state.waiting.reason : undefined;
    if (typeof reason === 'string' && reason !== 'PodInitializing') return reason;
  }
  if (status.phase === 'Pending' && spec.nodeName === undefined) return 'Unscheduled';
  return status.phase ?? 'Pending';
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
