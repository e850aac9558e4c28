import type { PodView } from '../../model/endpoint.ts';
import { type Labels, labelsKey, selects } from '../../model/labels.ts';

/** Pods that a policy cannot, or should not, tell apart: one workload's. */
export interface PodGroup {
  readonly namespace: string;
  /** What to call it. */
  readonly title: string;
  /** The fewest labels that all of its pods have and no other pod of the namespace has. */
  readonly labels: Labels;
}

/** Labels that are an instance's, not a workload's. */
const instanceLabels = new Set([
  'pod-template-hash',
  'pod-template-generation',
  'controller-revision-hash',
  'controller-uid',
  'job-name',
  'batch.kubernetes.io/controller-uid',
  'batch.kubernetes.io/job-name',
  'batch.kubernetes.io/job-completion-index',
  'statefulset.kubernetes.io/pod-name',
  'apps.kubernetes.io/pod-index',
]);
/** Those by which people know a workload, the best first. */
const preferred = ['app.kubernetes.io/name', 'app', 'k8s-app', 'name', 'app.kubernetes.io/component', 'component'];

type Member = Pick<PodView, 'namespace' | 'name' | 'labels' | 'hostNetwork'>;

/** Finds the group of pods, also of pods that are gone: by the name that their workload gave them. */
export class PodGroups {
  readonly #byName = new Map<string, PodGroup>();
  readonly #byWorkload = new Map<string, PodGroup>();

  /** @param pods Those there are; of one workload, one suffices. */
  constructor(pods: Iterable<Member>) {
    const members = [...pods].filter(({ hostNetwork }) => !hostNetwork);
    const byLabels = new Map<string, Member[]>();
    for (const pod of members) {
      const key = `${pod.namespace} ${labelsKey(stable(pod.labels))}`;
      byLabels.set(key, [...(byLabels.get(key) ?? []), pod]);
    }
    for (const own of byLabels.values()) {
      const group = groupOf(own, members);
      for (const pod of own) {
        if (group === undefined) continue;
        this.#byName.set(`${pod.namespace}/${pod.name}`, group);
        this.#byWorkload.set(`${pod.namespace}/${workloadName(pod.name)}`, group);
      }
    }
  }

  /** @returns Undefined for a pod that nobody knows, or that has no label to be known by. */
  of(namespace: string, name: string): PodGroup | undefined {
    const workload = workloadName(name);
    return this.#byName.get(`${namespace}/${name}`) ?? this.#byWorkload.get(`${namespace}/${workload}`);
  }
}

function groupOf(own: readonly Member[], all: readonly Member[]): PodGroup | undefined {
  const [first] = own;
  if (first === undefined) return undefined;
  const labels = stable(first.labels);
  const others = all.filter((pod) => pod.namespace === first.namespace && !own.includes(pod));
  const keys = Object.keys(labels).sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
  const choices = [...keys.map((key) => [key]), ...keys.flatMap((a, i) => keys.slice(i + 1).map((b) => [a, b])), keys];
  const only = choices
    .filter((choice) => choice.length > 0)
    .map((choice) => Object.fromEntries(choice.map((key) => [key, labels[key] ?? ''])))
    .find((chosen) => !others.some((pod) => selects({ matchLabels: chosen }, pod.labels)));
  if (only === undefined) return undefined;
  const known = preferred.find((key) => Object.hasOwn(labels, key));
  return { namespace: first.namespace, title: (known && labels[known]) || workloadName(first.name), labels: only };
}

function rank(key: string): number {
  const place = preferred.indexOf(key);
  return place < 0 ? preferred.length : place;
}

function stable(labels: Labels): Labels {
  return Object.fromEntries(Object.entries(labels).filter(([key]) => !instanceLabels.has(key)));
}

/** `cart-6f7d8c9b5-x2x4z` and `cart-x2x4z` are pods of `cart`. */
export function workloadName(pod: string): string {
  return pod.replace(/(-[a-z0-9]{5,10})?-[a-z0-9]{5}$/, '').replace(/-\d+$/, '');
}
