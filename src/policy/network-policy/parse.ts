import { z } from 'zod';
import { everyPort } from '../../model/port.ts';
import type { Direction } from '../../model/verdict.ts';
import { type BrokenPolicy, type FieldIssue, formatIssues, type ParseResult, toIssues, toSelector } from '../issues.ts';
import type { NamespaceMatch, PeerMatch, Policy, PortMatch, Rule } from '../rule.ts';
import { type NetworkPolicySpec, networkPolicySchema, selectorSchema } from './schema.ts';

type PeerSpec = NonNullable<NonNullable<NonNullable<NetworkPolicySpec['ingress']>[number]['from']>[number]>;
type PortSpec = NonNullable<NonNullable<NetworkPolicySpec['ingress']>[number]['ports']>[number];

export { type BrokenPolicy, type FieldIssue, formatIssues, type ParseResult } from '../issues.ts';

const kind = 'NetworkPolicy';

/**
 * Validates a NetworkPolicy and turns it into the rule form, with the API's defaults applied.
 * @param object As JSON or YAML gives it.
 * @param defaultNamespace For a manifest that names none.
 */
export function parseNetworkPolicy(object: unknown, defaultNamespace = 'default'): ParseResult {
  const parsed = networkPolicySchema.safeParse(object);
  if (parsed.success) {
    const { name, namespace } = parsed.data.metadata;
    return { ok: true, policy: toPolicy(namespace ?? defaultNamespace, name, parsed.data.spec ?? {}) };
  }
  const issues = parsed.error.issues.flatMap(toIssues);
  const broken = brokenPolicy(object, defaultNamespace, issues);
  return broken === undefined ? { ok: false, issues } : { ok: false, issues, broken };
}

function toPolicy(namespace: string, name: string, spec: NetworkPolicySpec): Policy {
  const isolates = directions(spec);
  // Rules of a direction that policyTypes leaves out are inert, as in Kubernetes.
  const rules: Rule[] = [];
  const add = (
    direction: Direction,
    list: readonly { peers?: PeerSpec[] | null | undefined; ports?: PortSpec[] | null | undefined }[],
  ): void => {
    if (!isolates.includes(direction)) return;
    for (const [index, rule] of list.entries())
      rules.push({
        ref: { kind, namespace, name, direction, index },
        // An absent and an empty list of peers, or of ports, both mean all of them (NetworkPolicyIngressRule).
        peers: rule.peers?.length ? rule.peers.map((peer) => toPeer(peer, namespace)) : 'any',
        ports: rule.ports?.length ? rule.ports.map(toPort) : 'any',
        verdict: 'allow',
        level: 'allow',
        priority: 0,
      });
  };
  add('ingress', spec.ingress?.map(({ from, ports }) => ({ peers: from, ports })) ?? []);
  add('egress', spec.egress?.map(({ to, ports }) => ({ peers: to, ports })) ?? []);
  const pods = toSelector(spec.podSelector ?? {});
  const subject: PeerMatch = { kind: 'pods', namespaces: { name: namespace }, pods };
  return { kind, namespace, name, gate: 'network', subject, isolates, rules };
}

/** pkg/apis/networking/v1/defaults.go: Ingress always, Egress where there is an egress rule. */
function directions(spec: NetworkPolicySpec): Direction[] {
  const types = spec.policyTypes ?? [];
  if (types.length === 0) return spec.egress?.length ? ['ingress', 'egress'] : ['ingress'];
  const isolates: Direction[] = [];
  if (types.includes('Ingress')) isolates.push('ingress');
  if (types.includes('Egress')) isolates.push('egress');
  return isolates;
}

function toPeer({ podSelector, namespaceSelector, ipBlock }: PeerSpec, namespace: string): PeerMatch {
  if (ipBlock != null) return { kind: 'cidr', cidr: ipBlock.cidr, except: ipBlock.except ?? [] };
  const namespaces: NamespaceMatch =
    namespaceSelector == null ? { name: namespace } : { selector: toSelector(namespaceSelector) };
  return { kind: 'pods', namespaces, pods: toSelector(podSelector ?? {}) };
}

function toPort({ protocol, port, endPort }: PortSpec): PortMatch {
  const transport = protocol ?? 'TCP';
  if (port == null) return { protocol: transport, port: everyPort };
  if (typeof port === 'string') return { protocol: transport, port: { name: port } };
  return { protocol: transport, port: { from: port, to: endPort ?? port } };
}

/** Just enough of a foreign object to know whom it is about. */
const outline = z.looseObject({
  metadata: z.looseObject({ name: z.string().min(1), namespace: z.string().nullish() }),
});
const subjectOutline = z.looseObject({ spec: z.looseObject({ podSelector: selectorSchema.nullish() }) });

function brokenPolicy(
  object: unknown,
  defaultNamespace: string,
  issues: readonly FieldIssue[],
): BrokenPolicy | undefined {
  const readable = outline.safeParse(object);
  if (!readable.success) return undefined;
  const { name } = readable.data.metadata;
  const namespace = readable.data.metadata.namespace ?? defaultNamespace;
  const subject = subjectOutline.safeParse(object);
  const selector = subject.success ? toSelector(subject.data.spec.podSelector ?? {}) : {};
  return {
    kind,
    namespace,
    name,
    gate: 'network',
    subject: { kind: 'pods', namespaces: { name: namespace }, pods: selector },
    isolates: ['ingress', 'egress'],
    rules: [],
    broken: `not understood, so it denies all traffic of ${subject.success ? 'the pods that it selects' : 'every pod of its namespace'}: ${formatIssues(issues)}`,
  };
}
