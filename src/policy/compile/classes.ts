import { createHash } from 'node:crypto';
import type { PodView } from '../../model/endpoint.ts';
import { type Labels, labelsKey, type Selector } from '../../model/labels.ts';
import type { Prefix } from '../../model/prefix.ts';
import type { IdentityClass } from '../image.ts';
import { leavesOfRules, type Rule } from '../rule.ts';
import { push } from './lists.ts';
import type { Regions } from './regions.ts';

/**
 * Labels that controllers put on single replicas or single rollouts. They would make every pod a class of its own, so
 * they count only where a policy of the node names them.
 */
const replicaLabels: ReadonlySet<string> = new Set([
  'pod-template-hash',
  'pod-template-generation',
  'controller-revision-hash',
  'statefulset.kubernetes.io/pod-name',
  'apps.kubernetes.io/pod-index',
  'batch.kubernetes.io/controller-uid',
  'batch.kubernetes.io/job-name',
  'batch.kubernetes.io/job-completion-index',
  'controller-uid',
  'job-name',
]);

/** Those replica labels of pods, and those labels of nodes, that policies name: all the others tell nobody apart. */
export interface NamedLabels {
  /** Equal for equal labels. */
  readonly key: string;
  readonly ofPods: string;
  readonly ofNodes: ReadonlySet<string>;
}

/** A region, and its part of a class key. */
interface Where {
  readonly region: Prefix;
  readonly key: string;
}

/** @param rules All rules that peers are matched against. */
export function namedLabels(rules: Iterable<Rule>): NamedLabels {
  const pods = new Set<string>();
  const nodes = new Set<string>();
  for (const peer of leavesOfRules(rules)) {
    if (peer.kind === 'pods') for (const key of keysOf(peer.pods)) if (replicaLabels.has(key)) pods.add(key);
    if (peer.kind === 'node') for (const key of keysOf(peer.labels ?? {})) nodes.add(key);
  }
  const ofPods = [...pods].sort().join(' ');
  return { key: `${ofPods},${[...nodes].sort().join(' ')}`, ofPods, ofNodes: nodes };
}

export function classOfPod(pod: PodView, where: Where | undefined, { ofPods }: NamedLabels): IdentityClass {
  const { key, labels } = traitsOfPod(pod, ofPods);
  const { namespace, serviceAccount, namedPorts } = pod;
  const common = { kind: 'pod', namespace, serviceAccount, labels, namedPorts } as const;
  return where === undefined ? { key, ...common } : { key: `${key} ${where.key}`, ...common, region: where.region };
}

/** @returns Undefined for a node in no region without labels that matter: it has a reserved identity. */
export function classOfNode(
  kind: 'this-node' | 'other-node',
  allLabels: Labels,
  where: Where | undefined,
  { ofNodes }: NamedLabels,
): IdentityClass | undefined {
  const labels = Object.fromEntries(Object.entries(allLabels).filter(([label]) => ofNodes.has(label)));
  if (where === undefined && Object.keys(labels).length === 0) return undefined;
  const key = `${kind} ${labelsKey(labels)}`;
  return where === undefined
    ? { key, kind, labels }
    : { key: `${key} ${where.key}`, kind, labels, region: where.region };
}

/** The class of those addresses of a region that are nobody's. */
export function worldClass(region: Prefix): IdentityClass & { readonly region: Prefix } {
  return { key: `world ${region}`, kind: 'world', region };
}

/**
 * A region's part of a class key. A class must mean the same under the same key for ever, because who holds its number
 * (a proven tunnel) learns of a change later than the rule sets do. So the key also names the smaller regions with pods
 * or nodes that are cut out of this one: where one more is cut out, or one less, the rest gets a new number.
 */
export function keysOfRegions(regions: Regions, inhabited: ReadonlySet<Prefix>): Map<Prefix, string> {
  const holes = new Map<Prefix, Prefix[]>();
  for (const region of inhabited) for (const outer of regions.around(region)) push(holes, outer, region);
  const keyOf = (region: Prefix): string => {
    const own = holes.get(region);
    if (own === undefined) return region;
    return `${region} without ${createHash('sha256').update(own.sort().join()).digest('base64')}`;
  };
  return new Map([...inhabited].map((region) => [region, keyOf(region)]));
}

function keysOf({ matchLabels = {}, matchExpressions = [] }: Selector): string[] {
  return [...Object.keys(matchLabels), ...matchExpressions.map((requirement) => requirement.key)];
}

/** What of a pod its class is made of, the region left out. */
interface Traits {
  readonly named: string;
  readonly key: string;
  readonly labels: Labels;
}

/** Pods are never changed in place, so what was derived from one holds as long as the object lives. */
const traitsByPod = new WeakMap<PodView, Traits>();

/** @param named Replica labels that count, as one text; part of the key, because with it changes what a class means. */
function traitsOfPod(pod: PodView, named: string): Traits {
  const known = traitsByPod.get(pod);
  if (known?.named === named) return known;
  const counting = new Set(named.split(' '));
  const entries = Object.entries(pod.labels).filter(([key]) => !replicaLabels.has(key) || counting.has(key));
  const labels = Object.fromEntries(entries);
  const ports = pod.namedPorts.map(({ name, protocol, port }) => `${name}/${protocol}=${port}`).sort();
  const key = `pod ${pod.namespace} ${pod.serviceAccount} ${labelsKey(labels)} ${ports.join(',')} ${named}`;
  const traits = { named, key, labels };
  traitsByPod.set(pod, traits);
  return traits;
}
