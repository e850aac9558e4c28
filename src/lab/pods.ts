import type { Api } from '../api/client/types.ts';
import { kinds, type Live, type Pod } from '../api/kinds.ts';
import { LabError } from './error.ts';
import type { LabPlan } from './plan.ts';
import { type ContainerRecord, recordOf } from './runner/container.ts';

/** Which container of which pod, as a person says it. */
export interface PodTarget {
  readonly namespace?: string;
  /** A pod's name, `deploy/NAME`, or the name of a Deployment: then any pod of it that runs. */
  readonly pod: string;
  /** Default: the pod's first. */
  readonly container?: string;
}

/** @throws {LabError} `NoSuchPod` */
export async function findPod(api: Api, { namespace = 'default', pod }: PodTarget): Promise<Live<Pod>> {
  const { entries } = await api.list(kinds.Pod, { namespace });
  const pods = entries.flatMap(({ object }) => (object === undefined ? [] : [object]));
  const found = choosePod(pods, pod);
  if (found !== undefined) return found;
  const names = pods.map(({ metadata }) => metadata.name).sort();
  const known = names.length === 0 ? 'it has none' : `it has ${names.join(', ')}`;
  throw new LabError('NoSuchPod', `there is no pod ${pod} in namespace ${namespace}: ${known}`);
}

/** The pod of that name; else, of the Deployment of that name, one that runs, ready ones first. Pure. */
function choosePod(pods: readonly Live<Pod>[], name: string): Live<Pod> | undefined {
  const exact = pods.find(({ metadata }) => metadata.name === name);
  if (exact !== undefined) return exact;
  const deployment = name.replace(/^(deploy|deployment|deployments)(\.apps)?\//, '');
  const rank = ({ metadata, status }: Live<Pod>) =>
    Number(metadata.deletionTimestamp !== undefined) * 4 +
    Number(status?.phase !== 'Running') * 2 +
    Number(!status?.conditions?.some(({ type, status: holds }) => type === 'Ready' && holds === 'True'));
  return pods
    .filter(({ metadata }) =>
      metadata.ownerReferences?.some(({ kind, name: owner }) => kind === 'Deployment' && owner === deployment),
    )
    .toSorted((a, b) => rank(a) - rank(b))[0];
}

/** @returns How to enter a container. @throws {LabError} `NoSuchPod` where it is not running */
export function containerOf(plan: LabPlan, pod: Live<Pod>, container = pod.spec.containers[0]?.name): ContainerRecord {
  const { uid, namespace, name } = pod.metadata;
  const record = container === undefined ? undefined : recordOf(`${plan.directory}/pods/${uid}/${container}`);
  if (record !== undefined) return record;
  const names = [...pod.spec.containers, ...(pod.spec.initContainers ?? [])].map((each) => each.name);
  const why = names.includes(container ?? '') ? 'is not running' : `does not exist; there are ${names.join(', ')}`;
  throw new LabError('NoSuchPod', `container ${container} of pod ${namespace}/${name} ${why}`);
}
