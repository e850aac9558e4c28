import { z } from 'zod';
import { attributeProblem, isIpBlock, isPort, pathProblem } from './values.ts';

/**
 * security.istio.io/v1 (and v1beta1, which is the same) AuthorizationPolicy and PeerAuthentication, as their
 * CustomResourceDefinitions and Istio's admission webhook validate them. Stricter in one thing: an unknown field is an
 * error, for a field that is skipped is a condition that is not enforced. As in Istio, an empty list of values is an
 * absent one.
 */

const apiVersion = z.enum(['security.istio.io/v1', 'security.istio.io/v1beta1']).optional();
const metadata = z.looseObject({
  name: z.string().min(1, 'must not be empty'),
  namespace: z.string().optional(),
  annotations: z.record(z.string(), z.unknown()).optional(),
  creationTimestamp: z.string().optional(),
});

/** A map by hand, because z.record leaves a key `__proto__` out without a word, and so selects more than was written. */
export function mapOf<Value>(value: z.ZodType<Value>, checkKey: (key: string) => string | undefined, most?: number) {
  return z.unknown().transform((map, context): ReadonlyMap<string, Value> => {
    if (typeof map !== 'object' || map === null || Array.isArray(map)) {
      context.addIssue({ code: 'custom', message: 'expected an object' });
      return z.NEVER;
    }
    const found = new Map<string, Value>();
    for (const [key, raw] of Object.entries(map)) {
      const wrong = checkKey(key);
      if (wrong !== undefined) context.addIssue({ code: 'custom', message: wrong, path: [key] });
      const checked = value.safeParse(raw);
      if (checked.success) found.set(key, checked.data);
      else
        for (const { message, path } of checked.error.issues)
          context.addIssue({ code: 'custom', message, path: [key, ...path] });
    }
    if (most !== undefined && found.size > most)
      context.addIssue({ code: 'custom', message: `must have at most ${most} fields` });
    return found;
  });
}

const labelValue = z
  .string('expected a text (quote numbers and booleans)')
  .max(63, 'must have at most 63 characters')
  .refine((text) => !text.includes('*'), 'must not have a wildcard');
const labelKeyProblem = (key: string): string | undefined =>
  key === '' ? 'a label’s key must not be empty' : key.includes('*') ? 'must not have a wildcard' : undefined;

/** Its own schema because a broken policy's subject is read on its own. */
export const workloadSelectorSchema = z.strictObject({
  matchLabels: mapOf(labelValue, labelKeyProblem, 4096).optional(),
});

const targets = [
  ['gateway.networking.k8s.io', 'Gateway'],
  ['gateway.networking.k8s.io', 'GatewayClass'],
  ['', 'Service'],
  ['core', 'Service'],
  ['networking.istio.io', 'ServiceEntry'],
];
const targetRef = z
  .strictObject({
    group: z.string().optional(),
    kind: z.string(),
    name: z.string().min(1, 'must not be empty').max(253, 'must have at most 253 characters'),
    namespace: z.literal('').optional(),
  })
  .superRefine(({ group = '', kind }, context) => {
    if (!targets.some(([ownGroup, ownKind]) => group === ownGroup && kind === ownKind))
      context.addIssue({ code: 'custom', message: 'must name a Gateway, GatewayClass, Service or ServiceEntry' });
  });

const value = z.string().min(1, 'must not be empty');
const values = z.array(value).optional();
const ipBlocks = z.array(value.refine(isIpBlock, 'is neither an IP address nor a CIDR prefix')).optional();
const ports = z.array(value.refine(isPort, 'is not a port from 0 to 65535')).optional();
const paths = z
  .array(
    value.superRefine((path, context) => {
      const message = pathProblem(path);
      if (message !== undefined) context.addIssue({ code: 'custom', message });
    }),
  )
  .optional();
const serviceAccounts = z
  .array(
    z
      .string()
      .max(320, 'must have at most 320 characters')
      .regex(/^[^*/]+(\/[^*/]+)?$/, 'is neither a service account’s name nor namespace/name, without wildcards'),
  )
  .max(16, 'must have at most 16 elements')
  .optional();
const trustDomains = z
  .array(
    value.regex(/^(\*?[^*/]+|[^*/]+\*|\*)$/, 'is not a trust domain with at most one wildcard, at its start or end'),
  )
  .optional();

const source = z
  .strictObject({
    principals: values,
    notPrincipals: values,
    requestPrincipals: values,
    notRequestPrincipals: values,
    namespaces: values,
    notNamespaces: values,
    serviceAccounts,
    notServiceAccounts: serviceAccounts,
    ipBlocks,
    notIpBlocks: ipBlocks,
    remoteIpBlocks: ipBlocks,
    notRemoteIpBlocks: ipBlocks,
    trustDomains,
    notTrustDomains: trustDomains,
  })
  .superRefine((given, context) => {
    notEmpty(given, context);
    const accounts = given.serviceAccounts ?? given.notServiceAccounts;
    const names = given.principals ?? given.notPrincipals ?? given.namespaces ?? given.notNamespaces;
    if (accounts !== undefined && names !== undefined)
      context.addIssue({ code: 'custom', message: 'must not have serviceAccounts beside principals or namespaces' });
  });

const operation = z
  .strictObject({
    hosts: values,
    notHosts: values,
    ports,
    notPorts: ports,
    methods: values,
    notMethods: values,
    paths,
    notPaths: paths,
  })
  .superRefine(notEmpty);

/** Something that asks for nothing would be about everything: Istio's webhook refuses it too. */
function notEmpty(given: Readonly<Record<string, readonly string[] | undefined>>, context: z.RefinementCtx): void {
  if (Object.values(given).every((list) => list === undefined || list.length === 0))
    context.addIssue({ code: 'custom', message: 'must not be empty' });
}

const condition = z
  .strictObject({ key: z.string(), values, notValues: values })
  .superRefine(({ key, values: some = [], notValues: none = [] }, context) => {
    if (some.length === 0 && none.length === 0)
      context.addIssue({ code: 'custom', message: 'must have values or notValues' });
    const message = attributeProblem(key, [...some, ...none]);
    if (message !== undefined) context.addIssue({ code: 'custom', message });
  });

const atLeastOne = 'must have at least one element';
const few = 'must have at most 512 elements';
const rule = z.strictObject({
  from: z.array(z.strictObject({ source })).min(1, atLeastOne).max(512, few).optional(),
  to: z.array(z.strictObject({ operation })).min(1, atLeastOne).optional(),
  when: z.array(condition).optional(),
});

export const authorizationPolicySchema = z.strictObject({
  apiVersion,
  kind: z.literal('AuthorizationPolicy').optional(),
  metadata,
  spec: z
    .strictObject({
      selector: workloadSelectorSchema.optional(),
      targetRef: targetRef.optional(),
      targetRefs: z.array(targetRef).max(16, 'must have at most 16 elements').optional(),
      rules: z.array(rule).max(512, few).optional(),
      action: z.enum(['ALLOW', 'DENY', 'AUDIT', 'CUSTOM']).optional(),
      provider: z.strictObject({ name: z.string() }).optional(),
    })
    .superRefine(({ selector, targetRef: one, targetRefs: many, rules = [], action, provider }, context) => {
      const say = (message: string, path: string): void => context.addIssue({ code: 'custom', message, path: [path] });
      if ([selector, one, many?.length ? many : undefined].filter((own) => own !== undefined).length > 1)
        say('must not stand beside another of selector, targetRef and targetRefs', 'selector');
      if (rules.length === 0 && (action === 'DENY' || action === 'CUSTOM'))
        say(`${action} without rules is never asked; a rule {} is about everything`, 'rules');
      if (action === 'CUSTOM' ? !provider?.name : provider !== undefined)
        say(action === 'CUSTOM' ? 'must have a name' : 'is only for the action CUSTOM', 'provider');
    })
    .optional(),
  /** What implementations say of it; nothing to enforce. */
  status: z.unknown().optional(),
});

export type AuthorizationSpec = NonNullable<z.infer<typeof authorizationPolicySchema>['spec']>;
export type AuthorizationRule = z.infer<typeof rule>;
export type Source = z.infer<typeof source>;
export type Operation = z.infer<typeof operation>;
export type Condition = z.infer<typeof condition>;

const mutualTls = z.strictObject({ mode: z.enum(['UNSET', 'DISABLE', 'PERMISSIVE', 'STRICT']).optional() });
const portKeyProblem = (key: string): string | undefined =>
  /^\d{1,5}$/.test(key) && Number(key) >= 1 && Number(key) <= 65535 ? undefined : 'is not a port from 1 to 65535';

export const peerAuthenticationSchema = z.strictObject({
  apiVersion,
  kind: z.literal('PeerAuthentication').optional(),
  metadata,
  spec: z
    .strictObject({
      selector: workloadSelectorSchema.optional(),
      mtls: mutualTls.optional(),
      portLevelMtls: mapOf(mutualTls, portKeyProblem)
        .refine((map) => map.size > 0, 'must have at least one port')
        .optional(),
    })
    .superRefine(({ selector, portLevelMtls }, context) => {
      if (portLevelMtls !== undefined && !selector?.matchLabels?.size)
        context.addIssue({ code: 'custom', message: 'needs a selector with labels', path: ['portLevelMtls'] });
    })
    .optional(),
  status: z.unknown().optional(),
});

export type PeerAuthenticationSpec = NonNullable<z.infer<typeof peerAuthenticationSchema>['spec']>;
