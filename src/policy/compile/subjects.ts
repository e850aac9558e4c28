import type { PodView } from '../../model/endpoint.ts';
import { labelsKey } from '../../model/labels.ts';
import type { Direction, RuleRef } from '../../model/verdict.ts';
import { deniesByDefault } from '../decide.ts';
import { selectsPod } from '../match.ts';
import { comparePolicies, compareRules, type Policy, policyRef, type Rule, withoutRequests } from '../rule.ts';
import type { ClusterView } from '../view.ts';
import { push } from './lists.ts';

/** What is asked of a pod's traffic in one direction. */
export interface SubjectSide {
  /** In the order in which they decide. */
  readonly rules: readonly Rule[];
  /** Whether what no rule allows is denied: by the first of the policies that isolate, or by the default. */
  readonly isolation: { readonly by: 'policy'; readonly ref: RuleRef } | { readonly by: 'default' } | undefined;
}

export type SubjectSides = Readonly<Record<Direction, SubjectSide>>;

/** The pods that have an endpoint on the node, by UID in order. */
export function localPods(view: ClusterView, node: string): PodView[] {
  const pods = [...view.pods.values()].filter((pod) => pod.node === node && !pod.hostNetwork);
  return pods.sort((a, b) => (a.uid < b.uid ? -1 : 1));
}

/** What the policies ask of each of the pods. Pods of one namespace with equal labels share the answer. */
export function subjectSides(view: ClusterView, pods: readonly PodView[]): Map<PodView, SubjectSides> {
  const { byNamespace, anywhere } = indexPolicies(view.policies);
  const found = new Map<string, SubjectSides>();
  const sides = new Map<PodView, SubjectSides>();
  for (const pod of pods) {
    const key = `${pod.namespace} ${labelsKey(pod.labels)}`;
    let own = found.get(key);
    if (own === undefined) {
      const candidates = [...(byNamespace.get(pod.namespace) ?? []), ...anywhere];
      const policies = candidates.filter((policy) => selectsPod(view, policy.subject, pod)).sort(comparePolicies);
      const byDefault = deniesByDefault(view, pod.namespace);
      own = { egress: side(policies, 'egress', byDefault), ingress: side(policies, 'ingress', byDefault) };
      found.set(key, own);
    }
    sides.set(pod, own);
  }
  return sides;
}

function side(policies: readonly Policy[], direction: Direction, denyByDefault: boolean): SubjectSide {
  const first = policies.find((policy) => policy.isolates.includes(direction));
  const rules = policies
    .flatMap((policy) => policy.rules)
    .flatMap((rule) => withoutRequests(rule) ?? [])
    // Isolation comes before the baseline, so where it is there is nothing for the baseline to decide.
    .filter((rule) => rule.ref.direction === direction && !(first !== undefined && rule.level === 'baseline'))
    .sort(compareRules);
  if (first !== undefined) return { rules, isolation: { by: 'policy', ref: policyRef(first, direction) } };
  return { rules, isolation: denyByDefault ? { by: 'default' } : undefined };
}

/** Most policies are about one namespace: no need to ask all of them about every pod. */
function indexPolicies(policies: readonly Policy[]): { byNamespace: Map<string, Policy[]>; anywhere: Policy[] } {
  const byNamespace = new Map<string, Policy[]>();
  const anywhere: Policy[] = [];
  for (const policy of policies) {
    const { subject } = policy;
    if (subject.kind === 'pods' && 'name' in subject.namespaces) push(byNamespace, subject.namespaces.name, policy);
    else anywhere.push(policy);
  }
  return { byNamespace, anywhere };
}
