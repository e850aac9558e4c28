import type { Condition, Container, ContainerStatus, Pod, PodStatus } from '../../api/kinds.ts';
import type { IpAddress } from '../../model/address.ts';

interface Terminated {
  readonly kind: 'terminated';
  readonly exitCode: number;
  readonly startedAt: Date;
  readonly finishedAt: Date;
}

/** One container as its node sees it. */
export interface ContainerView {
  readonly state:
    | { readonly kind: 'waiting'; readonly reason: string; readonly message?: string }
    | { readonly kind: 'running'; readonly startedAt: Date }
    | Terminated;
  /** How it ended the time before. */
  readonly last?: Terminated;
  readonly restarts: number;
  /** Its startup probe has succeeded, or it has none. */
  readonly started: boolean;
  /** It is running, and its readiness probe has succeeded, or it has none. */
  readonly ready: boolean;
  /** It has ended and will not be started again. */
  readonly finished: boolean;
}

export const waitingView: ContainerView = {
  state: { kind: 'waiting', reason: 'PodInitializing' },
  restarts: 0,
  started: false,
  ready: false,
  finished: false,
};

export interface PodFacts {
  readonly pod: Pod;
  readonly hostAddresses: readonly IpAddress[];
  readonly addresses: readonly IpAddress[];
  readonly hasSandbox: boolean;
  /** By container; those that have not been begun may be missing. */
  readonly init: ReadonlyMap<string, ContainerView>;
  readonly main: ReadonlyMap<string, ContainerView>;
  /** Why the pod cannot go on, as the kubelet would put it. */
  readonly trouble?: { readonly reason: string; readonly message: string };
  readonly startTime: Date;
  readonly now: Date;
}

/** The status that a kubelet would report. Pure: the times of conditions that did not change are taken from the pod's last status. */
export function podStatus(facts: PodFacts): PodStatus {
  const { pod, hostAddresses, addresses, init, main, trouble, now } = facts;
  // By what the pod is to have: before its network is there, it has no container that could be unready.
  const initialized = (pod.spec.initContainers ?? []).every(({ name, restartPolicy }) => {
    const view = init.get(name) ?? waitingView;
    return restartPolicy === 'Always' ? view.started : view.finished && exitCode(view) === 0;
  });
  const containersReady = initialized && pod.spec.containers.every(({ name }) => main.get(name)?.ready === true);
  const condition = (type: string, holds: boolean, reason: string): Condition => {
    const status = holds ? 'True' : 'False';
    const before = pod.status?.conditions?.find((each) => each.type === type && each.status === status);
    const lastTransitionTime = before?.lastTransitionTime ?? timestamp(now);
    return { type, status, lastTransitionTime, ...(holds ? {} : { reason }) };
  };
  const notReady = 'ContainersNotReady';
  const ips = (list: readonly IpAddress[]) => list.map((ip) => ({ ip }));
  const [hostIP] = hostAddresses;
  const [podIP] = addresses;
  return {
    phase: phaseOf(facts, initialized),
    conditions: [
      condition('PodScheduled', true, ''),
      condition('PodReadyToStartContainers', facts.hasSandbox, 'NoSandbox'),
      condition('Initialized', initialized, 'ContainersNotInitialized'),
      condition('ContainersReady', containersReady, notReady),
      condition('Ready', containersReady && pod.metadata.deletionTimestamp === undefined, notReady),
    ],
    startTime: timestamp(facts.startTime),
    ...(pod.status?.qosClass === undefined ? {} : { qosClass: pod.status.qosClass }),
    ...(hostIP === undefined ? {} : { hostIP, hostIPs: ips(hostAddresses) }),
    ...(podIP === undefined ? {} : { podIP, podIPs: ips(addresses) }),
    ...(trouble === undefined ? {} : trouble),
    ...(init.size === 0 ? {} : { initContainerStatuses: statusesOf(pod.spec.initContainers ?? [], init, pod) }),
    containerStatuses: statusesOf(pod.spec.containers, main, pod),
  };
}

function phaseOf({ main, init, trouble }: PodFacts, initialized: boolean): PodStatus['phase'] {
  const views = [...main.values()];
  const failed = (view: ContainerView) => view.finished && exitCode(view) !== 0;
  if ([...init.values()].some(failed)) return 'Failed';
  if (views.length > 0 && views.every((view) => view.finished)) return views.some(failed) ? 'Failed' : 'Succeeded';
  const begun = initialized && views.some((view) => view.state.kind !== 'waiting' || view.last !== undefined);
  return begun && trouble === undefined ? 'Running' : 'Pending';
}

function exitCode({ state }: ContainerView): number | undefined {
  return state.kind === 'terminated' ? state.exitCode : undefined;
}

function statusesOf(
  containers: readonly Container[],
  views: ReadonlyMap<string, ContainerView>,
  pod: Pod,
): ContainerStatus[] {
  return containers.map(({ name, image = '' }) => {
    const view = views.get(name) ?? waitingView;
    const id = `myelin-lab://${pod.metadata.uid}/${name}/${view.restarts}`;
    return {
      name,
      image,
      imageID: image,
      ready: view.ready,
      started: view.started,
      restartCount: view.restarts,
      ...(view.state.kind === 'waiting' ? {} : { containerID: id }),
      state: stateOf(view.state),
      lastState: view.last === undefined ? {} : stateOf(view.last),
    };
  });
}

function stateOf(state: ContainerView['state']): Record<string, unknown> {
  switch (state.kind) {
    case 'waiting':
      return { waiting: { reason: state.reason, ...(state.message === undefined ? {} : { message: state.message }) } };
    case 'running':
      return { running: { startedAt: timestamp(state.startedAt) } };
    case 'terminated': {
      const { exitCode, startedAt, finishedAt } = state;
      return {
        terminated: {
          exitCode,
          reason: exitCode === 0 ? 'Completed' : 'Error',
          startedAt: timestamp(startedAt),
          finishedAt: timestamp(finishedAt),
        },
      };
    }
  }
}

/** RFC 3339 with whole seconds, as Kubernetes writes times. */
export function timestamp(time: Date): string {
  return time.toISOString().replace(/\.\d+Z$/, 'Z');
}
