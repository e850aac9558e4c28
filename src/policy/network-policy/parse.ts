import { z } from 'zod';
import type { Selector } from '../../model/labels.ts';
import { everyPort } from '../../model/port.ts';
import type { Direction } from '../../model/verdict.ts';
import type { NamespaceMatch, PeerMatch, Policy, PortMatch, Rule } from '../rule.ts';
import { type NetworkPolicySpec, networkPolicySchema, selectorSchema } from './schema.ts';

/** One thing that is wrong with an object, with the place: a program finds the line by `path`, a person reads `field`. */
export interface FieldIssue {
  readonly path: readonly (string | number)[];
  /** `spec.ingress[0].ports[1].endPort`; empty for the object as a whole. */
  readonly field: string;
  readonly message: string;
}

/**
 * A policy that does not validate is refused where it can be (CLI, API). Where it arrives anyway, from a newer server, the
 * node enforces `broken` in its place; it is absent only where not even the policy's name can be read.
 */
export type ParseResult =
  | { readonly ok: true; readonly policy: Policy }
  | { readonly ok: false; readonly issues: readonly FieldIssue[]; readonly broken?: BrokenPolicy };

/**
 * Stands in for a policy that is not understood: it isolates in both directions what the policy selects (the whole
 * namespace if even that cannot be read) and allows nothing, so that whatever was meant, nothing opens.
 */
export type BrokenPolicy = Policy & { readonly broken: string };

type PeerSpec = NonNullable<NonNullable<NonNullable<NetworkPolicySpec['ingress']>[number]['from']>[number]>;
type PortSpec = NonNullable<NonNullable<NetworkPolicySpec['ingress']>[number]['ports']>[number];
type SelectorSpec = z.infer<typeof selectorSchema>;

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

/** The first few issues as one line, for statuses and logs. */
export function formatIssues(issues: readonly FieldIssue[]): string {
  const shown = issues.slice(0, 5).map(({ field, message }) => (field === '' ? message : `${field}: ${message}`));
  return [...shown, ...(issues.length > 5 ? [`and ${issues.length - 5} more`] : [])].join('; ');
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

function toSelector({ matchLabels, matchExpressions }: SelectorSpec): Selector {
  return {
    ...(matchLabels == null ? {} : { matchLabels }),
    ...(matchExpressions == null
      ? {}
      : {
          matchExpressions: matchExpressions.map(({ key, operator, values }) => ({
            key,
            operator,
            ...(values == null ? {} : { values }),
          })),
        }),
  };
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

function toIssues(issue: z.core.$ZodIssue): FieldIssue[] {
  const path = issue.path.map((part) => (typeof part === 'number' ? part : String(part)));
  if (issue.code === 'unrecognized_keys')
    return issue.keys.map((key) => fieldIssue([...path, key], 'is not a field of this kind'));
  if (issue.code === 'invalid_value')
    return [fieldIssue(path, `expected ${issue.values.map((value) => JSON.stringify(value)).join(' or ')}`)];
  if (issue.code === 'invalid_type' && issue.message.startsWith('Invalid input'))
    return [fieldIssue(path, `expected ${typeWords[issue.expected] ?? issue.expected}`)];
  return [fieldIssue(path, issue.message)];
}

const typeWords: Readonly<Record<string, string>> = { array: 'a list', object: 'an object', string: 'a text' };

function fieldIssue(path: (string | number)[], message: string): FieldIssue {
  const field = path.map((part) => (typeof part === 'number' ? `[${part}]` : `.${part}`)).join('');
  return { path, field: field.startsWith('.') ? field.slice(1) : field, message };
}
