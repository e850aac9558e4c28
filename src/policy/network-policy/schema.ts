import { z } from 'zod';
import type { Labels } from '../../model/labels.ts';
import { type Prefix, parsePrefix, prefixWithin } from '../../model/prefix.ts';

/**
 * networking.k8s.io/v1 NetworkPolicy as the API server validates it (pkg/apis/networking/validation), with one difference:
 * an unknown field is an error, because a field that is skipped is a condition that is not enforced.
 * As in Go's JSON, `null` in place of an object or a list means that the field is absent.
 */

const nameSyntax = /^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/;
const subdomainSyntax = /^(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;

/** Whether a text is a label's key, with or without a prefix before a slash. */
export function isLabelKey(text: string): boolean {
  const [first = '', second, ...rest] = text.split('/');
  if (second === undefined) return nameSyntax.test(first);
  return rest.length === 0 && subdomainSyntax.test(first) && nameSyntax.test(second);
}

const labelKey = z
  .string('expected a label key')
  .refine(isLabelKey, 'is not a label key such as app or example.com/tier');
const labelValue = z
  .string('expected a text (quote numbers and booleans)')
  .refine(
    (text) => text === '' || nameSyntax.test(text),
    'is not a label value (at most 63 letters, digits, "-", "_" and ".")',
  );

/** A LabelSelector whose keys are of this form; some APIs write more than a label's key there. */
export function selectorSchemaOf(key: z.ZodType<string>) {
  return z.strictObject({
    matchLabels: labelsOf(key).nullish(),
    matchExpressions: z.array(requirementOf(key)).nullish(),
  });
}

/** By hand, because z.record leaves a key `__proto__` out without a word, and so selects more than was written. */
function labelsOf(keySchema: z.ZodType<string>) {
  return z.unknown().transform((value, context): Labels => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      context.addIssue({ code: 'custom', message: 'expected a map of labels' });
      return z.NEVER;
    }
    const entries = Object.entries(value).flatMap(([key, raw]): [string, string][] => {
      const checked = z.tuple([keySchema, labelValue]).safeParse([key, raw]);
      if (checked.success) return [checked.data];
      for (const { message } of checked.error.issues) context.addIssue({ code: 'custom', message, path: [key] });
      return [];
    });
    return Object.fromEntries(entries);
  });
}

function requirementOf(key: z.ZodType<string>) {
  return z
    .strictObject({
      key,
      operator: z.enum(['In', 'NotIn', 'Exists', 'DoesNotExist']),
      values: z.array(labelValue).nullish(),
    })
    .superRefine(({ operator, values }, context) => {
      const some = (values ?? []).length > 0;
      const needs = operator === 'In' || operator === 'NotIn';
      if (needs === some) return;
      const message = needs ? `must not be empty with operator ${operator}` : `must be empty with operator ${operator}`;
      context.addIssue({ code: 'custom', message, path: ['values'] });
    });
}

/** A LabelSelector; its own schema because a broken policy's subject is read on its own. */
export const selectorSchema = selectorSchemaOf(labelKey);

/** Host bits may be set and are cleared. */
export const cidr = z.string('expected a CIDR prefix').transform((text, context): Prefix => {
  try {
    return parsePrefix(text);
  } catch {
    context.addIssue({ code: 'custom', message: 'is not a CIDR prefix such as 10.0.0.0/8 or fd00::/48' });
    return z.NEVER;
  }
});

const ipBlock = z
  .strictObject({ cidr, except: z.array(cidr).nullish() })
  .superRefine(({ cidr: outer, except }, context) => {
    for (const [index, inner] of (except ?? []).entries())
      if (inner === outer || !prefixWithin(inner, outer))
        context.addIssue({
          code: 'custom',
          message: `must lie within ${outer} and be smaller`,
          path: ['except', index],
        });
  });

const peer = z
  .strictObject({
    podSelector: selectorSchema.nullish(),
    namespaceSelector: selectorSchema.nullish(),
    ipBlock: ipBlock.nullish(),
  })
  .superRefine(({ podSelector, namespaceSelector, ipBlock: block }, context) => {
    const selectors = podSelector != null || namespaceSelector != null;
    if (!selectors && block == null)
      context.addIssue({ code: 'custom', message: 'must have podSelector, namespaceSelector or ipBlock' });
    if (selectors && block != null)
      context.addIssue({ code: 'custom', message: 'must not stand beside a selector', path: ['ipBlock'] });
  });

const portNumber = z
  .int('expected a port number')
  .min(1, 'must be from 1 to 65535')
  .max(65535, 'must be from 1 to 65535');
/** IANA service name (RFC 6335 section 5.1), as the API server checks it. */
const portName = z
  .string()
  .regex(
    /^(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*$/,
    'is not a port name (at most 15 lower-case letters, digits and "-", with at least one letter)',
  );

const port = z.unknown().transform((value, context): number | string => {
  const checked = (typeof value === 'string' ? portName : portNumber).safeParse(value);
  if (checked.success) return checked.data;
  for (const { message } of checked.error.issues) context.addIssue({ code: 'custom', message });
  return z.NEVER;
});

const portRule = z
  .strictObject({
    protocol: z.enum(['TCP', 'UDP', 'SCTP']).nullish(),
    port: port.nullish(),
    endPort: portNumber.nullish(),
  })
  .superRefine(({ port: from, endPort }, context) => {
    if (endPort == null) return;
    if (typeof from !== 'number')
      context.addIssue({ code: 'custom', message: 'needs a numeric port beside it', path: ['endPort'] });
    else if (endPort < from)
      context.addIssue({ code: 'custom', message: `must not be less than port ${from}`, path: ['endPort'] });
  });

const ports = z.array(portRule).nullish();
const peers = z.array(peer).nullish();

export const networkPolicySchema = z.strictObject({
  apiVersion: z.literal('networking.k8s.io/v1').nullish(),
  kind: z.literal('NetworkPolicy').nullish(),
  metadata: z.looseObject({ name: z.string().min(1, 'must not be empty'), namespace: z.string().nullish() }),
  spec: z
    .strictObject({
      podSelector: selectorSchema.nullish(),
      policyTypes: z.array(z.enum(['Ingress', 'Egress'])).nullish(),
      ingress: z.array(z.strictObject({ from: peers, ports })).nullish(),
      egress: z.array(z.strictObject({ to: peers, ports })).nullish(),
    })
    .nullish(),
  /** Gone from the API since 1.28; older servers still send it. Nobody's wish, so nothing to enforce. */
  status: z.unknown().optional(),
});

export type NetworkPolicyObject = z.infer<typeof networkPolicySchema>;
export type NetworkPolicySpec = NonNullable<NetworkPolicyObject['spec']>;
