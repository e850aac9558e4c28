import { z } from 'zod';
import { type BrokenPolicy, type FieldIssue, formatIssues, type PoliciesResult, toIssues } from '../issues.ts';
import type { PeerMatch, Policy } from '../rule.ts';
import { type CiliumKind, type CiliumRuleSpec, endpointSelector, policySchemas, ruleSchema } from './schema.ts';
import { everyPod, type Scope } from './selector.ts';
import { asksForServices, type ServiceLookup } from './services.ts';
import { type Origin, subjectOf, toPolicy } from './translate.ts';

/**
 * Validates a CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy and turns it into the rule form.
 * @param object As JSON or YAML gives it.
 * @param defaultNamespace For a manifest that names none.
 * @param services Asked where rules are about services, by whoever follows them.
 */
export function parseCiliumPolicy(
  kind: CiliumKind,
  object: unknown,
  defaultNamespace = 'default',
  services?: () => ServiceLookup,
): PoliciesResult {
  const parsed = policySchemas[kind].safeParse(object);
  if (!parsed.success) {
    const issues = parsed.error.issues.flatMap(toIssues);
    const broken = brokenPolicy(kind, object, defaultNamespace, issues);
    return broken === undefined ? { ok: false, issues } : { ok: false, issues, broken };
  }
  const { metadata, spec, specs } = parsed.data;
  const { namespace, scope } = placeOf(kind, metadata.namespace, defaultNamespace);
  const origin = (suffix: string, path: Origin['path'], one: CiliumRuleSpec): Origin => ({
    ...{ kind, namespace, name: `${metadata.name}${suffix}`, path, scope },
    ...(services !== undefined && asksForServices(one) ? { services: services() } : {}),
  });
  const policies = [
    ...(spec == null ? [] : [toPolicy(origin('', ['spec'], spec), spec)]),
    ...(specs ?? []).map((one, index) => toPolicy(origin(` specs[${index}]`, ['specs', index], one), one)),
  ];
  return { ok: true, policies };
}

/** What rules of a bare list are called, which is no object of an API. */
export const bareKind = 'CiliumRule';

const bareSchema = z.array(ruleSchema).min(1, 'must not be empty');

/**
 * Validates the list of rules that Cilium's agent takes without Kubernetes. Its selectors look everywhere, not only among
 * pods: the empty one is everybody.
 * @param name What to call the list; each rule is named by it and its place.
 */
export function parseCiliumRules(list: unknown, name: string): PoliciesResult {
  const parsed = bareSchema.safeParse(list);
  if (!parsed.success) {
    const issues = parsed.error.issues.flatMap(toIssues);
    const subject = everyPod;
    return { ok: false, issues, broken: closed({ kind: bareKind, namespace: '', name, subject }, 'every pod', issues) };
  }
  const policies = parsed.data.map((rule, index) => {
    const origin = {
      kind: bareKind,
      namespace: '',
      name: `${name}[${index}]`,
      path: [index],
      scope: 'everybody',
    } as const;
    return toPolicy(origin, rule);
  });
  return { ok: true, policies };
}

function placeOf(
  kind: CiliumKind,
  given: string | null | undefined,
  defaultNamespace: string,
): { namespace: string; scope: Scope } {
  if (kind === 'CiliumClusterwideNetworkPolicy') return { namespace: '', scope: 'pods' };
  const namespace = given || defaultNamespace;
  return { namespace, scope: { namespace } };
}

/** Just enough of a foreign object to know whom it is about. */
const outline = z.looseObject({
  metadata: z.looseObject({ name: z.string().min(1), namespace: z.string().nullish() }),
});
const subjectOutline = z.looseObject({ endpointSelector });
const subjectsOutline = z.union([
  z.looseObject({ spec: subjectOutline, specs: z.null().optional() }),
  z.looseObject({ spec: z.null().optional(), specs: z.array(subjectOutline).min(1) }),
  z.looseObject({ spec: subjectOutline, specs: z.array(subjectOutline) }),
]);

function brokenPolicy(
  kind: CiliumKind,
  object: unknown,
  defaultNamespace: string,
  issues: readonly FieldIssue[],
): BrokenPolicy | undefined {
  const readable = outline.safeParse(object);
  if (!readable.success) return undefined;
  const { name, namespace: given } = readable.data.metadata;
  const { namespace, scope } = placeOf(kind, given, defaultNamespace);
  const read = subjectsOutline.safeParse(object);
  const selectors = read.success
    ? [...(read.data.spec == null ? [] : [read.data.spec]), ...(read.data.specs ?? [])].map(
        (one) => one.endpointSelector,
      )
    : [];
  const subjects = selectors.map((selector) => subjectOf({ scope, path: [] }, selector, []).subject);
  const [only] = subjects;
  const all: PeerMatch =
    typeof scope === 'object' ? { kind: 'pods', namespaces: { name: scope.namespace }, pods: {} } : everyPod;
  const subject: PeerMatch = only === undefined ? all : subjects.length === 1 ? only : { kind: 'some', of: subjects };
  const whom =
    only !== undefined ? 'the pods that it selects' : namespace === '' ? 'every pod' : 'every pod of its namespace';
  return closed({ kind, namespace, name, subject }, whom, issues);
}

function closed(
  base: Pick<Policy, 'kind' | 'namespace' | 'name' | 'subject'>,
  whom: string,
  issues: readonly FieldIssue[],
): BrokenPolicy {
  return {
    ...base,
    gate: 'network',
    isolates: ['ingress', 'egress'],
    rules: [],
    broken: `not understood, so it denies all traffic of ${whom}: ${formatIssues(issues)}`,
  };
}
