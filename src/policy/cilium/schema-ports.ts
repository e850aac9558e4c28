import { z } from 'zod';
import { parseRegex } from '../request/regex.ts';

/**
 * What a rule of Cilium's says of ports, ICMP messages and requests, as its CustomResourceDefinition and its agent check
 * it (Cilium 1.20). Kafka and generic L7 rules, which 1.20 has no more, are read so that they can be said to be a limit.
 */

/** IANA service names (RFC 6335 section 5.1), in either case. */
const portNameSyntax = /^(?=.{1,15}$)(?=.*[A-Za-z])[A-Za-z0-9]+(-[A-Za-z0-9]+)*$/;
/** Without leading zeros, which some readers take for octal. */
const portNumberSyntax = /^(0|[1-9][0-9]{0,4})$/;

/** Protocols that have no ports, which Cilium takes where it is told to. */
export const portlessProtocols = ['VRRP', 'IGMP', 'GRE', 'IPIP', 'IPV6', 'ESP', 'AH'] as const;

function isPort(text: string): boolean {
  return portNameSyntax.test(text) || (portNumberSyntax.test(text) && Number(text) <= 65535);
}

const portProtocol = z
  .strictObject({
    port: z
      .string('expected a text (quote the number)')
      .refine((text) => text === '' || isPort(text), 'is neither a port number nor the name of a port')
      .nullish(),
    endPort: z.int('expected a port number').min(0).max(65535, 'must be from 0 to 65535').nullish(),
    protocol: z.enum(['TCP', 'UDP', 'SCTP', ...portlessProtocols, 'ANY', '']).nullish(),
  })
  .superRefine(({ port, endPort, protocol }, context) => {
    const issue = (name: string, message: string): void => context.addIssue({ code: 'custom', message, path: [name] });
    const portless = portlessProtocols.some((one) => one === protocol);
    if (portless) {
      if (port != null && port !== '' && port !== '0') issue('port', `${protocol} has no ports`);
      if (endPort != null && endPort !== 0) issue('endPort', `${protocol} has no ports`);
      return;
    }
    if (port == null || port === '') return issue('port', 'must be given');
    if (endPort == null || endPort === 0) return;
    if (!portNumberSyntax.test(port)) issue('endPort', 'needs a numeric port beside it');
    else if (endPort < Number(port)) issue('endPort', `must not be less than port ${port}`);
  });

const secret = z.strictObject({ namespace: z.string().nullish(), name: z.string().min(1, 'must not be empty') });
const tlsContext = z.strictObject({
  secret,
  trustedCA: z.string().nullish(),
  certificate: z.string().nullish(),
  privateKey: z.string().nullish(),
});

const regex = z.string().superRefine((text, context) => {
  const parsed = parseRegex(text);
  if (!parsed.ok)
    context.addIssue({ code: 'custom', message: `as a regular expression, ${JSON.stringify(text)} ${parsed.reason}` });
});

const headerMatch = z.strictObject({
  mismatch: z.enum(['LOG', 'ADD', 'DELETE', 'REPLACE', '']).nullish(),
  name: z.string().min(1, 'must not be empty'),
  secret: secret.nullish(),
  value: z.string().nullish(),
});

const httpRule = z.strictObject({
  path: regex.nullish(),
  method: regex.nullish(),
  host: regex.nullish(),
  headers: z.array(z.string().min(1, 'must not be empty')).nullish(),
  headerMatches: z.array(headerMatch).nullish(),
});

const nameSyntax = /^[-a-zA-Z0-9_]+(\.[-a-zA-Z0-9_]+)*\.?$/;
const patternSyntax = /^[-a-zA-Z0-9_*]+(\.[-a-zA-Z0-9_*]+)*\.?$/;
const longestName = z.string().max(255, 'must have at most 255 characters');

/** Names by `matchName` or `matchPattern`: of rules for DNS, and of toFQDNs. */
export const domainSelector = z
  .strictObject({
    matchName: longestName.refine((text) => text === '' || nameSyntax.test(text), 'is not a DNS name').nullish(),
    matchPattern: longestName
      .refine((text) => text === '' || patternSyntax.test(text), 'is not a DNS name, with * for any characters')
      .nullish(),
  })
  .superRefine(({ matchName, matchPattern }, context) => {
    if (Number(!!matchName) + Number(!!matchPattern) !== 1)
      context.addIssue({ code: 'custom', message: 'must have one of matchName and matchPattern' });
  });

const l7Rules = z
  .strictObject({
    http: z.array(httpRule).nullish(),
    dns: z.array(domainSelector).nullish(),
    kafka: z.array(z.unknown()).nullish(),
    l7proto: z.string().nullish(),
    l7: z.array(z.unknown()).nullish(),
  })
  .superRefine(({ http, dns, kafka, l7proto, l7 }, context) => {
    const kinds = [http, dns, kafka, l7proto ?? l7].filter((one) => one != null);
    if (kinds.length > 1) context.addIssue({ code: 'custom', message: 'must have rules of one protocol only' });
  });

/** Whether there is a rule for requests at all: empty lists are none. */
export function hasRequestRules(rules: z.infer<typeof l7Rules> | null | undefined): boolean {
  return [rules?.http, rules?.dns, rules?.kafka, rules?.l7, rules?.l7proto].some((one) => (one ?? '').length > 0);
}

const listener = z.strictObject({
  envoyConfig: z.strictObject({
    kind: z.enum(['CiliumEnvoyConfig', 'CiliumClusterwideEnvoyConfig', '']).nullish(),
    name: z.string().min(1, 'must not be empty'),
  }),
  name: z.string().min(1, 'must not be empty'),
  priority: z.int().min(0).max(100).nullish(),
});

const ports = z.array(portProtocol).max(40, 'must have at most 40 entries').nullish();

const portRuleSchema = z
  .strictObject({
    ports,
    terminatingTLS: tlsContext.nullish(),
    originatingTLS: tlsContext.nullish(),
    serverNames: z
      .array(longestName.refine((text) => patternSyntax.test(text), 'is not a server’s name'))
      .min(1, 'must not be empty')
      .nullish(),
    listener: listener.nullish(),
    rules: l7Rules.nullish(),
  })
  .superRefine((rule, context) => {
    const issue = (message: string, ...path: (string | number)[]): void =>
      context.addIssue({ code: 'custom', message, path });
    if (!hasRequestRules(rule.rules)) return;
    if (rule.serverNames != null && rule.terminatingTLS == null)
      issue('must not stand beside rules, unless terminatingTLS does too', 'serverNames');
    if (rule.listener != null) issue('must not stand beside rules', 'listener');
    const dns = (rule.rules?.dns ?? []).length > 0;
    if (dns && (rule.ports ?? []).length === 0) issue('must be given beside rules for DNS', 'ports');
    for (const [index, { port, endPort, protocol }] of (rule.ports ?? []).entries()) {
      if (port === '0') issue('must not be 0 beside rules', 'ports', index, 'port');
      if (dns && (endPort ?? 0) > Number(port)) issue('rules for DNS take no port ranges', 'ports', index, 'endPort');
      if (!dns && protocol !== 'TCP') issue('must be TCP beside rules', 'ports', index, 'protocol');
    }
  });

/** `toPorts` of a rule that allows. */
export const portRules = z.array(portRuleSchema).nullish();
/** `toPorts` of a rule that denies. */
export const portDenyRules = z.array(z.strictObject({ ports })).nullish();

export type PortRuleSpec = z.infer<typeof portRuleSchema>;
export type TlsContextSpec = z.infer<typeof tlsContext>;
export type PortSpec = z.infer<typeof portProtocol>;
export type HttpRuleSpec = z.infer<typeof httpRule>;
export type DomainSpec = z.infer<typeof domainSelector>;
