import { z } from 'zod';
import { prefixWithin } from '../../model/prefix.ts';
import { cidr, isLabelKey, selectorSchemaOf } from '../network-policy/schema.ts';
import { icmpRules } from './icmp.ts';
import { domainSelector, hasRequestRules, portDenyRules, portRules } from './schema-ports.ts';

/**
 * cilium.io/v2 CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy as their CustomResourceDefinition and Cilium's agent
 * check them (Cilium 1.20), with two differences: an unknown field is an error, because a field that is skipped is a
 * condition that is not enforced; and `fromRequires`/`toRequires`, which 1.20 takes only empty, mean what they meant
 * before. As in Go's JSON, `null` in place of an object or a list means that the field is absent.
 */

const sourceSyntax = /^[a-z0-9-]+$/;

/** Splits `k8s:app` into source and key; without a source it is `any`; `$host` is short for `reserved:host`. */
export function splitKey(text: string): { source: string; key: string } {
  if (text.startsWith('$')) return { source: 'reserved', key: text.slice(1) };
  const colon = text.indexOf(':');
  return colon < 0 ? { source: 'any', key: text } : { source: text.slice(0, colon), key: text.slice(colon + 1) };
}

const endpointKey = z.string('expected a label key').refine((text) => {
  const { source, key } = splitKey(text);
  return sourceSyntax.test(source) && isLabelKey(key);
}, 'is not a label key such as app, k8s:app or reserved:host');

/** A LabelSelector over Cilium's labels. */
export const endpointSelector = selectorSchemaOf(endpointKey);
export type EndpointSelectorSpec = z.infer<typeof endpointSelector>;
const endpoints = z.array(endpointSelector).nullish();

const entityNames = [
  ...['all', 'world', 'world-ipv4', 'world-ipv6', 'cluster', 'cluster-mesh', 'host', 'remote-node'],
  ...['kube-apiserver', 'ingress', 'init', 'health', 'unmanaged', 'none'],
] as const;
const entities = z
  .array(
    z.string().refine((name) => entityNames.some((known) => known === name), {
      message: `expected one of ${entityNames.join(', ')}`,
    }),
  )
  .nullish();

const cidrRule = z
  .strictObject({
    cidr: cidr.nullish(),
    cidrGroupRef: z.string().nullish(),
    cidrGroupSelector: endpointSelector.nullish(),
    except: z.array(cidr).nullish(),
  })
  .superRefine((rule, context) => {
    const given = [rule.cidr, rule.cidrGroupRef || undefined, rule.cidrGroupSelector].filter((one) => one != null);
    if (given.length !== 1)
      context.addIssue({ code: 'custom', message: 'must have one of cidr, cidrGroupRef and cidrGroupSelector' });
    for (const [index, inner] of (rule.except ?? []).entries())
      if (rule.cidr != null && !prefixWithin(inner, rule.cidr))
        context.addIssue({ code: 'custom', message: `must lie within ${rule.cidr}`, path: ['except', index] });
  });
export type CidrRuleSpec = z.infer<typeof cidrRule>;
const cidrs = z.array(cidr).nullish();
const cidrSet = z.array(cidrRule).nullish();

const groups = z
  .array(
    z.strictObject({
      aws: z
        .strictObject({
          labels: z.record(z.string(), z.string()).nullish(),
          securityGroupsIds: z.array(z.string()).nullish(),
          securityGroupsNames: z.array(z.string()).nullish(),
          region: z.string().nullish(),
        })
        .nullish(),
    }),
  )
  .nullish();

export const serviceSpec = z.strictObject({
  k8sService: z.strictObject({ serviceName: z.string().nullish(), namespace: z.string().nullish() }).nullish(),
  k8sServiceSelector: z.strictObject({ selector: endpointSelector, namespace: z.string().nullish() }).nullish(),
});
const services = z.array(serviceSpec).nullish();

const authentication = z.strictObject({ mode: z.enum(['disabled', 'required', 'test-always-fail']) }).nullish();

const from = {
  fromEndpoints: endpoints,
  fromRequires: endpoints,
  fromCIDR: cidrs,
  fromCIDRSet: cidrSet,
  fromEntities: entities,
  fromGroups: groups,
  fromNodes: endpoints,
};
const to = {
  toEndpoints: endpoints,
  toRequires: endpoints,
  toCIDR: cidrs,
  toCIDRSet: cidrSet,
  toEntities: entities,
  toServices: services,
  toGroups: groups,
  toNodes: endpoints,
};

const ingressRule = z
  .strictObject({ ...from, toPorts: portRules, icmps: icmpRules, authentication })
  .superRefine((rule, context) => {
    checkRule(rule, context);
    for (const [index, { rules }] of (rule.toPorts ?? []).entries())
      if ((rules?.dns ?? []).length > 0)
        context.addIssue({ code: 'custom', message: 'is for egress only', path: ['toPorts', index, 'rules', 'dns'] });
  });
const ingressDenyRule = z.strictObject({ ...from, toPorts: portDenyRules, icmps: icmpRules }).superRefine(checkRule);
const egressRule = z
  .strictObject({
    ...to,
    toFQDNs: z.array(domainSelector).nullish(),
    toPorts: portRules,
    icmps: icmpRules,
    authentication,
  })
  .superRefine(checkRule);
const egressDenyRule = z.strictObject({ ...to, toPorts: portDenyRules, icmps: icmpRules }).superRefine(checkRule);

export type IngressRuleSpec = z.infer<typeof ingressRule> | z.infer<typeof ingressDenyRule>;
export type EgressRuleSpec = z.infer<typeof egressRule> | z.infer<typeof egressDenyRule>;

/** Fields that say who the peers are; `…Requires` only narrows them. */
const peerFields = [
  ...['fromEndpoints', 'fromCIDR', 'fromCIDRSet', 'fromEntities', 'fromGroups', 'fromNodes', 'toEndpoints'],
  ...['toCIDR', 'toCIDRSet', 'toEntities', 'toServices', 'toGroups', 'toNodes', 'toFQDNs'],
];

function checkRule(rule: IngressRuleSpec | EgressRuleSpec, context: z.core.$RefinementCtx): void {
  const given = Object.entries(rule)
    .filter(([name, value]) => peerFields.includes(name) && Array.isArray(value) && value.length > 0)
    .map(([name]) => name);
  const [first, second] = given;
  if (second !== undefined)
    context.addIssue({ code: 'custom', message: `must not stand beside ${first}`, path: [second] });
  if ((rule.icmps ?? []).length > 0 && (rule.toPorts ?? []).length > 0)
    context.addIssue({ code: 'custom', message: 'must not stand beside toPorts', path: ['icmps'] });
}

const labels = z
  .array(
    z.union([
      z.string(),
      z.strictObject({ key: z.string(), value: z.string().nullish(), source: z.string().nullish() }),
    ]),
  )
  .nullish();

/** `api.Rule`: what a policy's `spec` is, and an element of a bare list of rules. */
export const ruleSchema = z
  .strictObject({
    endpointSelector: endpointSelector.nullish(),
    nodeSelector: endpointSelector.nullish(),
    ingress: z.array(ingressRule).nullish(),
    ingressDeny: z.array(ingressDenyRule).nullish(),
    egress: z.array(egressRule).nullish(),
    egressDeny: z.array(egressDenyRule).nullish(),
    labels,
    enableDefaultDeny: z.strictObject({ ingress: z.boolean().nullish(), egress: z.boolean().nullish() }).nullish(),
    description: z.string().nullish(),
    log: z
      .strictObject({
        value: z
          .string()
          .max(32, 'must have at most 32 characters')
          .refine((text) => !/\p{C}/u.test(text), 'must have printable characters only')
          .nullish(),
      })
      .nullish(),
  })
  .superRefine((rule, context) => {
    const selectors = [rule.endpointSelector, rule.nodeSelector].filter((one) => one != null);
    if (selectors.length !== 1)
      context.addIssue({ code: 'custom', message: 'must have one of endpointSelector and nodeSelector' });
    const lists = [rule.ingress, rule.ingressDeny, rule.egress, rule.egressDeny];
    if (lists.every((list) => (list ?? []).length === 0))
      context.addIssue({
        code: 'custom',
        message: 'must have at least one rule in ingress, ingressDeny, egress or egressDeny',
      });
    if (rule.nodeSelector == null) return;
    for (const [name, list] of [['ingress', rule.ingress] as const, ['egress', rule.egress] as const])
      for (const [index, { toPorts }] of (list ?? []).entries())
        for (const [at, { rules }] of (toPorts ?? []).entries())
          if (hasRequestRules(rules) && (name === 'ingress' || (rules?.http ?? []).length > 0))
            context.addIssue({
              code: 'custom',
              message: 'is not for nodes',
              path: [name, index, 'toPorts', at, 'rules'],
            });
  });
export type CiliumRuleSpec = z.infer<typeof ruleSchema>;

export const policyKinds = ['CiliumNetworkPolicy', 'CiliumClusterwideNetworkPolicy'] as const;
export type CiliumKind = (typeof policyKinds)[number];

function makeSchema(kind: CiliumKind) {
  return z
    .strictObject({
      apiVersion: z.literal('cilium.io/v2').nullish(),
      kind: z.literal(kind).nullish(),
      metadata: z.looseObject({ name: z.string().min(1, 'must not be empty'), namespace: z.string().nullish() }),
      spec: ruleSchema.nullish(),
      specs: z.array(ruleSchema).nullish(),
      /** What nodes say of the policy; nobody's wish. */
      status: z.unknown().optional(),
    })
    .superRefine(({ metadata, spec, specs }, context) => {
      if (spec == null && specs == null) context.addIssue({ code: 'custom', message: 'must have spec or specs' });
      if (kind === 'CiliumNetworkPolicy')
        for (const [rule, path] of [
          [spec, ['spec']] as const,
          ...(specs ?? []).map((one, index) => [one, ['specs', index]] as const),
        ])
          if (rule?.nodeSelector != null)
            context.addIssue({
              code: 'custom',
              message: 'is for CiliumClusterwideNetworkPolicy only',
              path: [...path, 'nodeSelector'],
            });
      if (kind === 'CiliumClusterwideNetworkPolicy' && metadata.namespace)
        context.addIssue({ code: 'custom', message: 'the kind has no namespaces', path: ['metadata', 'namespace'] });
    });
}

/** The schema of each kind. */
export const policySchemas = {
  CiliumNetworkPolicy: makeSchema('CiliumNetworkPolicy'),
  CiliumClusterwideNetworkPolicy: makeSchema('CiliumClusterwideNetworkPolicy'),
} as const satisfies Record<CiliumKind, unknown>;
