import { familyOf } from '../../model/address.ts';
import type { PodView } from '../../model/endpoint.ts';
import type { FlowEvent } from '../../model/flow.ts';
import { type Decision, decide, type FlowEnd } from '../decide.ts';
import type { ClusterView } from '../view.ts';
import { type Connection, connectionsOf, type SeenEnd } from './connections.ts';
import { workloadName } from './groups.ts';

/** Connections of one sort, and what two states of the policies say of them. */
export interface ChangedConnection {
  readonly connection: Connection;
  readonly before: Decision;
  readonly after: Decision;
}

export interface Changes {
  /** Those whose verdict differs. */
  readonly changed: readonly ChangedConnection[];
  /** How many were looked at, these among them. */
  readonly judged: number;
  /** Those of whose ends nobody knows any more who they are. */
  readonly unknown: readonly Connection[];
}

/**
 * Which of the recorded connections policies would now decide otherwise, by the reference decision. A pod that is gone is
 * judged as another one of its workload.
 * @param before The cluster as it is.
 * @param after The same with other policies.
 */
export function changedConnections(before: ClusterView, after: ClusterView, flows: Iterable<FlowEvent>): Changes {
  const pods = new PodFinder(before.pods.values());
  const changed: ChangedConnection[] = [];
  const unknown: Connection[] = [];
  let judged = 0;
  for (const connection of connectionsOf(flows)) {
    const { protocol, port, node } = connection;
    const source = endOf(connection.source, node, pods);
    const destination = endOf(connection.destination, node, pods);
    if (source === undefined || destination === undefined) {
      unknown.push(connection);
      continue;
    }
    judged++;
    const family = familyOf(connection.destination.address);
    const flow = { source, destination, protocol, port, family };
    const [was, is] = [decide(before, flow), decide(after, flow)];
    if (was.verdict !== is.verdict) changed.push({ connection, before: was, after: is });
  }
  return { changed, judged, unknown };
}

class PodFinder {
  readonly #byName = new Map<string, PodView>();
  readonly #byWorkload = new Map<string, PodView>();

  constructor(pods: Iterable<PodView>) {
    for (const pod of pods) {
      this.#byName.set(`${pod.namespace}/${pod.name}`, pod);
      this.#byWorkload.set(`${pod.namespace}/${workloadName(pod.name)}`, pod);
    }
  }

  find(namespace: string, name: string): PodView | undefined {
    return this.#byName.get(`${namespace}/${name}`) ?? this.#byWorkload.get(`${namespace}/${workloadName(name)}`);
  }
}

function endOf(end: SeenEnd, node: string, pods: PodFinder): FlowEnd | undefined {
  switch (end.kind) {
    case 'pod': {
      const pod = pods.find(end.namespace, end.name);
      return pod === undefined ? undefined : { pod: pod.uid };
    }
    case 'host':
      return { host: node };
    case 'node':
      return { host: end.name };
    case 'world':
      return { address: end.address };
    case 'unknown':
      return undefined;
  }
}
