import { z } from 'zod';
import { type Prefix, parsePrefix, prefixParts } from '../../model/prefix.ts';
import { selectorSchema } from '../network-policy/schema.ts';

/**
 * policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy as its CustomResourceDefinition validates it (the experimental
 * channel, which has `nodes` and `domainNames` beside the standard one), rules in CEL included. Stricter in three things:
 * an unknown field is an error, for a field that is skipped is a condition that is not enforced; label selectors must be
 * ones; and `domainNames` in a rule that does not accept is an error, which the API's text says and its schema does not.
 */

/** How many rules a direction has, peers a rule, and protocols a rule. */
export const mostRules = 25;
const listOf = <Item extends z.ZodType>(item: Item) =>
  z.array(item).min(1, 'must have at least one element').max(25, 'must have at most 25 elements');

/** Exactly one of the fields, as MinProperties and MaxProperties of the definition have it. */
function exactlyOne(value: object, context: z.RefinementCtx): void {
  const given = Object.values(value).filter((field) => field !== undefined).length;
  if (given !== 1) context.addIssue({ code: 'custom', message: 'must have exactly one field' });
}

const namespacedPod = z.strictObject({
  namespaceSelector: selectorSchema.optional(),
  podSelector: selectorSchema,
});

export const subjectSchema = z
  .strictObject({ namespaces: selectorSchema.optional(), pods: namespacedPod.optional() })
  .superRefine(exactlyOne);

/** As `isCIDR` of Kubernetes' CEL: host bits may be set, IPv4 inside IPv6 and leading zeros may not be. */
const network = z
  .string()
  .max(43, 'must have at most 43 characters')
  .transform((text, context): Prefix => {
    try {
      const prefix = parsePrefix(text);
      const mapped = text.includes(':') && prefixParts(prefix).family === 4;
      if (!mapped && !/(^|\.)0\d|\/0\d/.test(text)) return prefix;
    } catch {
      // Said below.
    }
    context.addIssue({ code: 'custom', message: 'is not a CIDR prefix such as 10.0.0.0/8 or fd00::/48' });
    return z.NEVER;
  });

const domainName = z
  .string()
  .regex(
    /^(\*\.)?([a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?$/,
    'is not a domain name such as kubernetes.io or *.kubernetes.io',
  );

/** `x-kubernetes-list-type: set` */
function noneTwice(values: readonly string[], context: z.RefinementCtx): void {
  for (const [index, value] of values.entries())
    if (values.indexOf(value) !== index)
      context.addIssue({ code: 'custom', message: 'is there already', path: [index] });
}

const ingressPeer = z
  .strictObject({ namespaces: selectorSchema.optional(), pods: namespacedPod.optional() })
  .superRefine(exactlyOne);
const egressPeer = z
  .strictObject({
    namespaces: selectorSchema.optional(),
    pods: namespacedPod.optional(),
    nodes: selectorSchema.optional(),
    networks: listOf(network).superRefine(noneTwice).optional(),
    domainNames: listOf(domainName).superRefine(noneTwice).optional(),
  })
  .superRefine(exactlyOne);

const portNumber = z
  .int('expected a port number')
  .min(1, 'must be from 1 to 65535')
  .max(65535, 'must be from 1 to 65535');
const range = z.strictObject({ start: portNumber, end: portNumber }).superRefine(({ start, end }, context) => {
  if (start >= end) context.addIssue({ code: 'custom', message: 'start must be less than end' });
});
const port = z.strictObject({ number: portNumber.optional(), range: range.optional() }).superRefine(exactlyOne);
const transport = z.strictObject({ destinationPort: port.optional() }).superRefine(exactlyOne);
const protocol = z
  .strictObject({
    tcp: transport.optional(),
    udp: transport.optional(),
    sctp: transport.optional(),
    destinationNamedPort: z.string().min(1, 'must not be empty').optional(),
  })
  .superRefine(exactlyOne);

const action = z.enum(['Accept', 'Deny', 'Pass']);
const name = z.string().max(100, 'must have at most 100 characters').optional();
const protocols = listOf(protocol).optional();

const ingressRule = z.strictObject({ name, action, from: listOf(ingressPeer), protocols });
const egressRule = z.strictObject({ name, action, to: listOf(egressPeer), protocols }).superRefine((rule, context) => {
  const nameless = rule.to.some((peer) => peer.networks ?? peer.nodes ?? peer.domainNames);
  if (nameless && rule.protocols?.some(({ destinationNamedPort }) => destinationNamedPort !== undefined))
    context.addIssue({
      code: 'custom',
      message: 'networks, nodes and domainNames have no named ports, so no protocol may be a destinationNamedPort',
    });
  for (const [index, peer] of rule.to.entries())
    if (peer.domainNames !== undefined && rule.action !== 'Accept')
      context.addIssue({
        code: 'custom',
        message: 'is only for rules with action Accept',
        path: ['to', index, 'domainNames'],
      });
});

const fewRules = `must have at most ${mostRules} rules`;
export const tierSchema = z.enum(['Admin', 'Baseline']);
export const prioritySchema = z
  .int('expected a whole number')
  .min(0, 'must be from 0 to 1000')
  .max(1000, 'must be from 0 to 1000');

export const clusterNetworkPolicySchema = z.strictObject({
  apiVersion: z.literal('policy.networking.k8s.io/v1alpha2').optional(),
  kind: z.literal('ClusterNetworkPolicy').optional(),
  metadata: z.looseObject({ name: z.string().min(1, 'must not be empty') }),
  spec: z.strictObject({
    tier: tierSchema,
    priority: prioritySchema,
    subject: subjectSchema,
    ingress: z.array(ingressRule).max(mostRules, fewRules).optional(),
    egress: z.array(egressRule).max(mostRules, fewRules).optional(),
  }),
  /** What implementations say of it; nothing to enforce. */
  status: z.unknown().optional(),
});

export type ClusterNetworkPolicySpec = z.infer<typeof clusterNetworkPolicySchema>['spec'];
export type EgressPeer = z.infer<typeof egressPeer>;
export type ProtocolMatch = z.infer<typeof protocol>;
