import type { PodView } from '../model/endpoint.ts';
import { type Direction, dropReasons, formatRule, type RuleRef, type SideDecision } from '../model/verdict.ts';
import { wouldDeny } from './audit.ts';
import {
  type Decision,
  decideGate,
  decideSide,
  enforced,
  type GateDecision,
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
import { isAbout } from './match.ts';
import { compareRules, type Gate, gates, type Policy, policyRef, type Rule } from './rule.ts';
import type { ClusterView } from './view.ts';

/** One side of an explanation, for programs; `Explanation.text` says the same to people. */
export interface SideExplanation {
  readonly direction: Direction;
  readonly decision: SideDecision;
  /** The policies that select the pod, also those that say nothing about this direction. */
  readonly policies: readonly RuleRef[];
  /** Those that were asked, in order; what one denies, the next is not asked about. */
  readonly gates: readonly {
    readonly gate: Gate;
    readonly decision: SideDecision;
    readonly passed: readonly RuleRef[];
  }[];
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

/** Says who decides about a flow and why: what `myelin why` prints. Same decision as `decide`, of what each side can see. */
export function explain(view: ClusterView, flow: PolicyFlow): Explanation {
  const resolved = resolveFlow(view, flow);
  const egress = explainSide(view, asReadAtSource(resolved), 'egress');
  const ingress = explainSide(view, resolved, 'ingress');
  const allowed = egress.side.decision.verdict === 'allow' && ingress.side.decision.verdict === 'allow';
  const { source, destination, protocol, port } = resolved;
  const ends = `${describeParty(source)} → ${describeParty(destination)}, ${describeFlowPort(protocol, port)}`;
  const text = [
    `${ends}: ${allowed ? 'allowed' : 'denied'}`,
    ...egress.lines,
    ...ingress.lines,
    ...describeAudit(wouldDeny(view, flow)),
  ].join('\n');
  return { verdict: allowed ? 'allow' : 'deny', egress: egress.side, ingress: ingress.side, text };
}

/** What a pod asks is read by the proxy; where the pod forbids that, it is a connection and no more. */
export function asReadAtSource(flow: ResolvedFlow): ResolvedFlow {
  const { request, ...unread } = flow;
  if (request === undefined || request.kind === 'dns') return flow;
  return flow.source.kind === 'pod' && flow.source.pod.proxy === 'never' ? unread : flow;
}

/** What audited policies would make of it. */
function describeAudit(decision: Decision | undefined): string[] {
  if (decision === undefined) return [];
  return (['egress', 'ingress'] as const)
    .filter((direction) => decision[direction].verdict === 'deny')
    .map(
      (direction) =>
        `  if what is audited were enforced, ${direction} would be ${describeDecision(decision[direction])}`,
    );
}

function explainSide(
  view: ClusterView,
  flow: ResolvedFlow,
  direction: Direction,
): { side: SideExplanation; lines: string[] } {
  const [subject, peer] = direction === 'egress' ? [flow.source, flow.destination] : [flow.destination, flow.source];
  const decision = decideSide(view, flow, direction);
  const policies = subject.kind === 'pod' ? policiesOf(view, subject.pod) : [];
  const asked =
    subject.kind !== 'pod' || decision.by === 'exempt' || decision.by === 'reason'
      ? []
      : askGates(view, flow, direction, subject.pod, peer, policies);
  const denied = asked.find(({ decided }) => decided.decision.verdict === 'deny');
  const isolated = denied?.decided.decision.by === 'isolation';
  const nearest =
    isolated && subject.kind === 'pod' ? nearestOf(view, denied, flow, subject.pod, peer, direction) : undefined;
  const broken = policies.flatMap((policy) =>
    policy.broken === undefined ? [] : [{ policy: policyRef(policy, direction), message: policy.broken }],
  );
  const meshed = policies.some(({ gate }) => gate === 'mesh');
  const side: SideExplanation = {
    direction,
    decision,
    policies: policies.map((policy) => policyRef(policy, direction)),
    gates: asked.map(({ gate, decided }) => ({
      gate,
      decision: decided.decision,
      passed: decided.passed.map(({ ref }) => ref),
    })),
    broken,
    ...(nearest === undefined ? {} : { nearest: { rule: nearest.rule.ref, differences: nearest.differences } }),
  };
  const verb = direction === 'egress' ? 'lets it go to' : 'admits';
  const lines = [
    `  ${direction} of ${describeParty(subject)}: ${describeDecision(decision)}`,
    ...(subject.kind === 'pod' ? [`    selected by: ${describePolicies(policies)}`] : []),
    ...asked.flatMap(({ gate, decided, policies: own }) => [
      ...(meshed ? [`    ${gate} gate: ${describeDecision(decided.decision)}`] : []),
      ...describeTrail(decided, own),
    ]),
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

/** The gates in their order, as far as they are asked: what one denies, the next is not asked about. */
function askGates(
  view: ClusterView,
  flow: ResolvedFlow,
  direction: Direction,
  subject: PodView,
  peer: Party,
  policies: readonly Policy[],
): { gate: Gate; decided: GateDecision; policies: readonly Policy[] }[] {
  const asked: { gate: Gate; decided: GateDecision; policies: readonly Policy[] }[] = [];
  for (const gate of gates) {
    const decided = decideGate(view, flow, direction, subject, peer, gate);
    asked.push({ gate, decided, policies: policies.filter((policy) => policy.gate === gate && enforced(policy)) });
    if (decided.decision.verdict === 'deny') break;
  }
  return asked;
}

/** What else is to be said of how a gate came to its decision. */
function describeTrail({ rule, passed }: GateDecision, policies: readonly Policy[]): string[] {
  const given = policies.flatMap((policy) => policy.rules).find(({ ref }) => ref === rule?.ref);
  return [
    ...passed.map(({ ref, level }) => `    ${formatRule(ref)} passes: no further rule of the level ${level} is asked`),
    ...(rule?.description === undefined ? [] : [`    ${formatRule(rule.ref)}: ${rule.description}`]),
    ...(given?.requests !== undefined && rule?.requests === undefined
      ? [
          `    ${formatRule(given.ref)} is about some requests only; which one this is is not known here, so it denies all`,
        ]
      : []),
  ];
}

function nearestOf(
  view: ClusterView,
  { policies, decided }: { policies: readonly Policy[]; decided: GateDecision },
  flow: ResolvedFlow,
  subject: PodView,
  peer: Party,
  direction: Direction,
): { rule: Rule; differences: readonly string[] } | undefined {
  const rules = policies
    .flatMap((policy) => policy.rules)
    .filter((rule) => rule.ref.direction === direction && isAbout(view, rule, subject))
    // The baseline is not asked where policies isolate, whatever it would say.
    .filter(({ level }) => level !== 'baseline')
    // Nor is what was passed over.
    .filter((rule) => !decided.passed.some((pass) => pass.level === rule.level && compareRules(pass, rule) < 0));
  return nearestMiss(view, rules, toRulePeer(peer, subject), toRulePort(flow), flow.request);
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
    : policies
        .map(
          (policy) =>
            `${policyName(policyRef(policy, 'ingress'))}${enforced(policy) ? '' : ' (audited, decides nothing)'}`,
        )
        .join(', ');
}

function policyName({ kind, namespace, name }: RuleRef): string {
  return `${kind} ${namespace === '' ? name : `${namespace}/${name}`}`;
}
