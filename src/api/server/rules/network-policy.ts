import { MyelinError } from '../../../model/error.ts';
import { type Prefix, parsePrefix, prefixParts, prefixWithin } from '../../../model/prefix.ts';
import type { FieldIssue } from '../../issue.ts';
import { kinds, type NetworkPolicy } from '../../kinds.ts';
import { forbiddenField, invalidValue, requiredValue } from '../../validate.ts';
import { checkName, checkPortNumber, portName } from './names.ts';
import { rulesFor } from './rules.ts';
import { checkSelector } from './selectors.ts';

type Spec = NonNullable<NetworkPolicy['spec']>;
type Rule = NonNullable<Spec['ingress']>[number] & NonNullable<Spec['egress']>[number];
type Port = NonNullable<Rule['ports']>[number];
type Peer = NonNullable<Rule['from']>[number];

/** Defaults and checks are those of Kubernetes' pkg/apis/networking (v1/defaults.go, validation/validation.go). */
export const networkPolicyRules = rulesFor(kinds.NetworkPolicy, {
  strict: true,
  judgesOddEnums: true,
  defaults: ({ spec }) => {
    if (spec === undefined) return;
    spec.podSelector ??= {};
    for (const rule of [...(spec.ingress ?? []), ...(spec.egress ?? [])])
      for (const port of rule.ports ?? []) port.protocol ??= 'TCP';
    if (spec.policyTypes === undefined || spec.policyTypes.length === 0)
      spec.policyTypes = (spec.egress ?? []).length > 0 ? ['Ingress', 'Egress'] : ['Ingress'];
  },
  validate: ({ spec }) => (spec === undefined ? [requiredValue('spec')] : checkSpec(spec)),
});

function checkSpec(spec: Spec): FieldIssue[] {
  const issues = checkSelector('spec.podSelector', spec.podSelector);
  for (const [i, { from, ports }] of (spec.ingress ?? []).entries())
    issues.push(...checkRule(`spec.ingress[${i}]`, 'from', from, ports));
  for (const [i, { to, ports }] of (spec.egress ?? []).entries())
    issues.push(...checkRule(`spec.egress[${i}]`, 'to', to, ports));
  if ((spec.policyTypes ?? []).length > 2)
    issues.push(invalidValue('spec.policyTypes', spec.policyTypes, 'may not specify more than two policyTypes'));
  return issues;
}

function checkRule(
  at: string,
  side: 'from' | 'to',
  peers: readonly Peer[] | undefined,
  ports: readonly Port[] | undefined,
): FieldIssue[] {
  return [
    ...(ports ?? []).flatMap((port, i) => checkPort(`${at}.ports[${i}]`, port)),
    ...(peers ?? []).flatMap((peer, i) => checkPeer(`${at}.${side}[${i}]`, peer)),
  ];
}

function checkPort(at: string, { port, endPort }: Port): FieldIssue[] {
  if (port === undefined)
    return endPort === undefined
      ? []
      : [invalidValue(`${at}.endPort`, endPort, 'may not be specified when `port` is not specified')];
  if (typeof port === 'string')
    return [
      ...(endPort === undefined
        ? []
        : [invalidValue(`${at}.endPort`, endPort, 'may not be specified when `port` is non-numeric')]),
      ...checkName(`${at}.port`, port, portName),
    ];
  const issues = checkPortNumber(`${at}.port`, port);
  if (endPort === undefined) return issues;
  if (endPort < port) issues.push(invalidValue(`${at}.endPort`, endPort, 'must be greater than or equal to `port`'));
  return [...issues, ...checkPortNumber(`${at}.endPort`, endPort)];
}

function checkPeer(at: string, { podSelector, namespaceSelector, ipBlock }: Peer): FieldIssue[] {
  const issues = [
    ...checkSelector(`${at}.podSelector`, podSelector),
    ...checkSelector(`${at}.namespaceSelector`, namespaceSelector),
  ];
  if (ipBlock === undefined) {
    if (podSelector === undefined && namespaceSelector === undefined)
      issues.push(requiredValue(at, 'must specify a peer'));
    return issues;
  }
  if (podSelector !== undefined || namespaceSelector !== undefined)
    issues.push(forbiddenField(at, 'may not specify both ipBlock and another peer'));
  return [...issues, ...checkIpBlock(`${at}.ipBlock`, ipBlock)];
}

function checkIpBlock(at: string, { cidr, except }: NonNullable<Peer['ipBlock']>): FieldIssue[] {
  if (cidr === '') return [requiredValue(`${at}.cidr`)];
  const whole = readPrefix(cidr);
  if (whole === undefined) return [invalidPrefix(`${at}.cidr`, cidr)];
  return (except ?? []).flatMap((text, i) => {
    const field = `${at}.except[${i}]`;
    const hole = readPrefix(text);
    if (hole === undefined) return [invalidPrefix(field, text)];
    const strict = prefixWithin(hole, whole) && prefixParts(hole).length > prefixParts(whole).length;
    return strict ? [] : [invalidValue(field, text, 'must be a strict subset of `cidr`')];
  });
}

function invalidPrefix(field: string, text: string): FieldIssue {
  return invalidValue(field, text, 'must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)');
}

/** @returns The prefix, or undefined where `text` is not one. */
export function readPrefix(text: string): Prefix | undefined {
  try {
    const prefix = parsePrefix(text);
    // ::ffff:10.0.0.0/24 would be read as an IPv4 prefix, with a length that was meant for 128 bits.
    return text.includes(':') && prefixParts(prefix).family === 4 ? undefined : prefix;
  } catch (error) {
    if (error instanceof MyelinError) return undefined;
    throw error;
  }
}
