import { tryParseIp } from '../../../model/address.ts';
import { prefixParts } from '../../../model/prefix.ts';
import type { FieldIssue } from '../../issue.ts';
import { kinds, type Node } from '../../kinds.ts';
import { forbiddenField, invalidValue, requiredValue } from '../../validate.ts';
import { checkPortNumber, checkUnique, dnsLabel, dnsSubdomain, type NameRule, pathSegment } from './names.ts';
import { readPrefix } from './network-policy.ts';
import { rulesFor } from './rules.ts';

const namespaceNameLabel = 'kubernetes.io/metadata.name';

export const namespaceRules = rulesFor(kinds.Namespace, {
  name: dnsLabel,
  prepareCreate: (namespace) => {
    namespace.spec = { finalizers: ['kubernetes'] };
    namespace.status = { phase: 'Active' };
  },
  prepareUpdate: (next, old) => {
    next.spec = old.spec;
  },
  defaults: ({ metadata }) => {
    // Policies select namespaces by this label, so nobody may give a namespace another one's.
    metadata.labels = { ...metadata.labels, [namespaceNameLabel]: metadata.name ?? '' };
  },
});

export const nodeRules = rulesFor(kinds.Node, {
  keepsStatusOnCreate: true,
  defaults: (node) => {
    node.spec ??= {};
    node.status ??= {};
    const { spec } = node;
    if (spec.podCIDRs === undefined && spec.podCIDR) spec.podCIDRs = [spec.podCIDR];
    if (spec.podCIDR === undefined && spec.podCIDRs?.[0]) spec.podCIDR = spec.podCIDRs[0];
  },
  validate: (node) => checkNode(node),
  validateUpdate: (next, old) => {
    const before = old.spec?.podCIDRs ?? [];
    const after = next.spec?.podCIDRs ?? [];
    if (before.length === 0 || before.join() === after.join()) return [];
    return [forbiddenField('spec.podCIDRs', 'node updates may not change podCIDR except from "" to valid')];
  },
});

function checkNode({ spec = {}, status = {} }: Node): FieldIssue[] {
  const prefixes = (spec.podCIDRs ?? []).map(readPrefix);
  const issues = (spec.podCIDRs ?? []).flatMap((text, i) =>
    prefixes[i] === undefined ? [invalidValue(`spec.podCIDRs[${i}]`, text, 'must be a valid CIDR value')] : [],
  );
  const families = new Set(prefixes.map((prefix) => prefix && prefixParts(prefix).family));
  if (issues.length === 0 && families.size < prefixes.length)
    issues.push(invalidValue('spec.podCIDRs', spec.podCIDRs, 'may specify no more than one CIDR for each IP family'));
  if (spec.podCIDR !== spec.podCIDRs?.[0])
    issues.push(invalidValue('spec.podCIDRs[0]', spec.podCIDRs?.[0], 'must be equal to `podCIDR`'));
  for (const [i, { type, address }] of (status.addresses ?? []).entries())
    if ((type === 'InternalIP' || type === 'ExternalIP') && tryParseIp(address) === undefined)
      issues.push(invalidValue(`status.addresses[${i}].address`, address, 'must be a valid IP address'));
  return issues;
}

export const serviceAccountRules = rulesFor(kinds.ServiceAccount, { name: dnsSubdomain });

const dataKey: NameRule = (text) =>
  /^[-._a-zA-Z0-9]{1,253}$/.test(text) && text !== '.' && text !== '..'
    ? undefined
    : "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";

function checkData(
  fields: Readonly<Record<string, Readonly<Record<string, string>> | undefined>>,
  encoded: readonly string[],
) {
  const issues: FieldIssue[] = [];
  for (const [field, data] of Object.entries(fields))
    for (const [key, value] of Object.entries(data ?? {})) {
      const wrong = dataKey(key);
      if (wrong !== undefined) issues.push(invalidValue(`${field}[${key}]`, key, wrong));
      if (encoded.includes(field) && !/^[A-Za-z0-9+/]*={0,2}$/.test(value))
        issues.push(invalidValue(`${field}[${key}]`, '', 'must be base64'));
    }
  return issues;
}

export const configMapRules = rulesFor(kinds.ConfigMap, {
  validate: ({ data, binaryData }) => checkData({ data, binaryData }, ['binaryData']),
});

export const secretRules = rulesFor(kinds.Secret, {
  defaults: (secret) => {
    secret.type ??= 'Opaque';
    for (const [key, value] of Object.entries(secret.stringData ?? {}))
      secret.data = { ...secret.data, [key]: Buffer.from(value).toString('base64') };
    delete secret.stringData;
  },
  validate: ({ data }) => checkData({ data }, ['data']),
});

export const endpointsRules = rulesFor(kinds.Endpoints, {
  defaults: ({ subsets = [] }) => {
    for (const { ports = [] } of subsets) for (const port of ports) port.protocol ??= 'TCP';
  },
  validate: ({ subsets = [] }) =>
    subsets.flatMap(({ addresses = [], notReadyAddresses = [], ports = [] }, i) => [
      ...[...addresses, ...notReadyAddresses].flatMap(({ ip }) =>
        tryParseIp(ip) === undefined ? [invalidValue(`subsets[${i}].addresses`, ip, 'must be a valid IP address')] : [],
      ),
      ...ports.flatMap(({ port }, n) =>
        port === undefined
          ? [requiredValue(`subsets[${i}].ports[${n}].port`)]
          : checkPortNumber(`subsets[${i}].ports[${n}].port`, port),
      ),
    ]),
});

export const endpointSliceRules = rulesFor(kinds.EndpointSlice, {
  defaults: (slice) => {
    slice.endpoints ??= [];
    slice.ports ??= [];
    for (const port of slice.ports) {
      port.protocol ??= 'TCP';
      port.name ??= '';
    }
  },
  validate: ({ addressType, endpoints = [], ports = [] }) => [
    ...endpoints.flatMap(({ addresses }, i) =>
      addresses.length === 0
        ? [requiredValue(`endpoints[${i}].addresses`, 'must contain at least 1 address')]
        : addresses.flatMap((text, n) => {
            const field = `endpoints[${i}].addresses[${n}]`;
            if (addressType === 'FQDN') return [];
            const ip = tryParseIp(text);
            const fits = ip !== undefined && text.includes(':') === (addressType === 'IPv6');
            return fits ? [] : [invalidValue(field, text, `must be a valid ${addressType} address`)];
          }),
    ),
    ...checkUnique('ports', ports, ({ name }) => name, '.name'),
    ...ports.flatMap(({ port }, i) => (port === undefined ? [] : checkPortNumber(`ports[${i}].port`, port))),
  ],
  validateUpdate: (next, old) =>
    next.addressType === old.addressType ? [] : [invalidValue('addressType', next.addressType, 'field is immutable')],
});

export const leaseRules = rulesFor(kinds.Lease, {
  validate: ({ spec = {} }) => {
    const { leaseDurationSeconds: duration, leaseTransitions: transitions } = spec;
    return [
      ...(duration !== undefined && duration <= 0
        ? [invalidValue('spec.leaseDurationSeconds', duration, 'must be greater than 0')]
        : []),
      ...(transitions !== undefined && transitions < 0
        ? [invalidValue('spec.leaseTransitions', transitions, 'must be greater than or equal to 0')]
        : []),
    ];
  },
});

export const eventRules = rulesFor(kinds.Event, {
  name: pathSegment,
  validate: ({ metadata, involvedObject }) => {
    // Events about objects without a namespace stand in "default".
    const expected = involvedObject.namespace || 'default';
    const system = !involvedObject.namespace && metadata.namespace === 'kube-system';
    return metadata.namespace === expected || system
      ? []
      : [invalidValue('involvedObject.namespace', involvedObject.namespace ?? '', 'does not match event.namespace')];
  },
});
