import type { PodView } from '../model/endpoint.ts';
import { type Direction, dropReasons, formatRule, type RuleRef, type SideDecision } from '../model/verdict.ts';
import {
  type Decision,
  decideSide,
  type Party,
  type PolicyFlow,
  policiesOf,
  type ResolvedFlow,
  resolveFlow,
  toRulePeer,
  toRulePort,
} from './decide.ts';
import { describeFlowPort, describeParty, describeRule } from './explain/describe.ts';
import { nearestMiss } from './explain/nearest.ts';
import { type Policy, policyRef, type Rule } from './rule.ts';
import type { ClusterView } from './view.ts';

/** One side of an explanation, for programs; `Explanation.text` says the same to people. */
export interface SideExplanation {
  readonly direction: Direction;
  readonly decision: SideDecision;
  /** The policies that select the pod, also those that say nothing about this direction. */
  readonly policies: readonly RuleRef[];
  /** Of those, the ones that were not understood, with what is wrong. */
  readonly broken: readonly { readonly policy: RuleRef; readonly message: string }[];
  /** Where isolation denies: the rule that comes closest to allowing, and what keeps it from doing so. */
  readonly nearest?: { readonly rule: RuleRef; readonly differences: readonly string[] };
}

export interface Explanation {
  readonly verdict: Decision['verdict'];
  readonly egress: SideExplanation;
  readonly ingress: SideExplanation;
  /** Several lines, the first the verdict as a whole. */
  readonly text: string;
}

/** Says who decides about a flow and why: what `myelin why` prints. Same decision as `decide`. */
export function explain(view: ClusterView, flow: PolicyFlow): Explanation {
  const resolved = resolveFlow(view, flow);
  const egress = explainSide(view, resolved, 'egress');
  const ingress = explainSide(view, resolved, 'ingress');
  const allowed = egress.side.decision.verdict === 'allow' && ingress.side.decision.verdict === 'allow';
  const { source, destination, protocol, port } = resolved;
  const ends = `${describeParty(source)} → ${describeParty(destination)}, ${describeFlowPort(protocol, port)}`;
  const text = [`${ends}: ${allowed ? 'allowed' : 'denied'}`, ...egress.lines, ...ingress.lines].join('\n');
  return { verdict: allowed ? 'allow' : 'deny', egress: egress.side, ingress: ingress.side, text };
}

function explainSide(
  view: ClusterView,
  flow: ResolvedFlow,
  direction: Direction,
): { side: SideExplanation; lines: string[] } {
  const [subject, peer] = direction === 'egress' ? [flow.source, flow.destination] : [flow.destination, flow.source];
  const decision = decideSide(view, flow, direction);
  const policies = subject.kind === 'pod' ? policiesOf(view, subject.pod) : [];
  const isolated = decision.verdict === 'deny' && decision.by === 'isolation';
  const nearest =
    isolated && subject.kind === 'pod' ? nearestOf(view, policies, flow, subject.pod, peer, direction) : undefined;
  const broken = policies.flatMap((policy) =>
    policy.broken === undefined ? [] : [{ policy: policyRef(policy, direction), message: policy.broken }],
  );
  const side: SideExplanation = {
    direction,
    decision,
    policies: policies.map((policy) => policyRef(policy, direction)),
    broken,
    ...(nearest === undefined ? {} : { nearest: { rule: nearest.rule.ref, differences: nearest.differences } }),
  };
  const verb = direction === 'egress' ? 'lets it go to' : 'admits';
  const lines = [
    `  ${direction} of ${describeParty(subject)}: ${describeDecision(decision)}`,
    ...(subject.kind === 'pod' ? [`    selected by: ${describePolicies(policies)}`] : []),
    ...broken.map(({ policy, message }) => `    ${policyName(policy)}: ${message}`),
    ...(nearest === undefined
      ? []
      : [
          `    nearest miss: ${formatRule(nearest.rule.ref)} ${verb} ${describeRule(nearest.rule)}; ${nearest.differences.join('; ')}`,
        ]),
    ...(isolated && nearest === undefined ? [`    no policy has a rule that allows any ${direction}`] : []),
  ];
  return { side, lines };
}

function nearestOf(
  view: ClusterView,
  policies: readonly Policy[],
  flow: ResolvedFlow,
  subject: PodView,
  peer: Party,
  direction: Direction,
): { rule: Rule; differences: readonly string[] } | undefined {
  const rules = policies
    .flatMap((policy) => policy.rules)
    // The baseline is not asked where policies isolate, whatever it would say.
    .filter((rule) => rule.ref.direction === direction && rule.level !== 'baseline');
  return nearestMiss(view, rules, toRulePeer(peer, subject), toRulePort(flow));
}

function describeDecision(decision: SideDecision): string {
  if (decision.verdict === 'allow') {
    if (decision.by === 'rule') return `allowed by ${formatRule(decision.rule)}`;
    if (decision.by === 'exempt') return `allowed: ${decision.why}`;
    return 'allowed: no policy isolates it in this direction';
  }
  switch (decision.by) {
    case 'rule':
      return `denied by ${formatRule(decision.rule)}`;
    case 'isolation':
      return `denied: no rule of ${decision.policies.map(policyName).join(', ')} allows it`;
    case 'default':
      return 'denied: no policy isolates it in this direction, and the default is to deny';
    case 'reason':
      return `denied: ${dropReasons[decision.reason].text}`;
  }
}

function describePolicies(policies: readonly Policy[]): string {
  return policies.length === 0
    ? 'no policy'
    : policies.map((policy) => policyName(policyRef(policy, 'ingress'))).join(', ');
}

function policyName({ kind, namespace, name }: RuleRef): string {
  return `${kind} ${namespace === '' ? name : `${namespace}/${name}`}`;
}
