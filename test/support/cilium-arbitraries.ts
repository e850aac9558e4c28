import fc from 'fast-check';
import { parseCiliumPolicy } from '../../src/policy/cilium/parse.ts';
import { type CiliumKind, policyKinds } from '../../src/policy/cilium/schema.ts';
import type { Policy } from '../../src/policy/rule.ts';

/**
 * Random policies of Cilium's kinds, valid ones, over the clusters of arbitraries.ts: the same labels, CIDRs and ports, so
 * that rules meet pods, nodes and the world.
 */

const one = <T>(...values: T[]): fc.Arbitrary<T> => fc.constantFrom(...values);
const some = <T>(of: fc.Arbitrary<T>, maxLength = 2): fc.Arbitrary<T[]> => fc.array(of, { maxLength });

const label = fc.oneof(
  { weight: 6, arbitrary: fc.tuple(one('app', 'k8s:app', 'any:app'), one('a', 'b', 'c')) },
  { weight: 3, arbitrary: fc.tuple(one('tier', 'k8s:tier'), one('x', 'y')) },
  {
    weight: 2,
    arbitrary: fc.tuple(one('io.kubernetes.pod.namespace', 'k8s:io.kubernetes.pod.namespace'), one('ns-x', 'ns-y')),
  },
  { weight: 1, arbitrary: fc.tuple(one('io.cilium.k8s.policy.serviceaccount'), one('default', 'sa')) },
  { weight: 1, arbitrary: fc.tuple(one('io.cilium.k8s.namespace.labels.team'), one('a', 'b')) },
  { weight: 1, arbitrary: fc.tuple(one('io.cilium.k8s.policy.cluster'), one('default', 'other')) },
  {
    weight: 1,
    arbitrary: fc.tuple(
      one('reserved:host', 'reserved:world', 'reserved:remote-node', 'reserved:kube-apiserver'),
      one(''),
    ),
  },
  { weight: 1, arbitrary: fc.tuple(one('container:image'), one('x')) },
);
const key = label.map(([text]) => text);
const requirement = fc.oneof(
  fc.record({
    key,
    operator: one('In', 'NotIn'),
    values: fc.subarray(['a', 'b', 'x', 'ns-x', 'default', ''], { minLength: 1 }),
  }),
  fc.record({ key, operator: one('Exists', 'DoesNotExist') }),
);
/** An EndpointSelector, mostly one that selects somebody. */
export const endpointSelectorArbitrary = fc.oneof(
  { weight: 3, arbitrary: fc.constant({}) },
  { weight: 5, arbitrary: fc.record({ matchLabels: some(label, 2).map((pairs) => Object.fromEntries(pairs)) }) },
  { weight: 3, arbitrary: fc.record({ matchExpressions: fc.array(requirement, { minLength: 1, maxLength: 2 }) }) },
);
const selectors = some(endpointSelectorArbitrary);

const cidr = one('0.0.0.0/0', '10.0.0.0/8', '10.0.1.0/24', '192.0.2.0/24', '192.0.2.128/25', '::/0', '2001:db8::/32');
const cidrRule = fc.oneof(
  { weight: 5, arbitrary: cidr.map((text): object => ({ cidr: text })) },
  {
    weight: 2,
    arbitrary: one({ cidr: '192.0.2.0/24', except: ['192.0.2.128/25'] }, { cidr: '::/0', except: ['2001:db8::/32'] }),
  },
  { weight: 1, arbitrary: fc.constant({ cidrGroupRef: 'group' }) },
);
const entity = one(
  'all',
  'world',
  'world-ipv4',
  'world-ipv6',
  'cluster',
  'host',
  'remote-node',
  'kube-apiserver',
  'init',
  'none',
);
const domain = one({ matchName: 'a.example' }, { matchPattern: '*.example' }, { matchPattern: '*' });

const peersOf = (prefix: 'from' | 'to', more: readonly fc.Arbitrary<object>[] = []): fc.Arbitrary<object> =>
  fc.oneof(
    fc.constant({}),
    selectors.map((list) => ({ [`${prefix}Endpoints`]: list })),
    some(cidr).map((list) => ({ [`${prefix}CIDR`]: list })),
    some(cidrRule).map((list) => ({ [`${prefix}CIDRSet`]: list })),
    some(entity).map((list) => ({ [`${prefix}Entities`]: list })),
    some(one({}, { matchLabels: { disk: 'fast' } })).map((list) => ({ [`${prefix}Nodes`]: list })),
    ...more,
  );
const requires = (prefix: 'from' | 'to'): fc.Arbitrary<object> =>
  fc.oneof(
    { weight: 9, arbitrary: fc.constant({}) },
    { weight: 1, arbitrary: selectors.map((list) => ({ [`${prefix}Requires`]: list })) },
  );

const port = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ port: one('80', '443', '53', '0', '65535'), protocol: one('TCP', 'UDP', 'SCTP', 'ANY') }),
  },
  { weight: 2, arbitrary: one({ port: '79', endPort: 81, protocol: 'TCP' }, { port: '1024', endPort: 65535 }) },
  { weight: 2, arbitrary: fc.record({ port: one('web', 'dns', 'WEB'), protocol: one('TCP', 'UDP', 'ANY') }) },
  { weight: 1, arbitrary: fc.constant({ protocol: 'GRE' }) },
);
const ports = some(port, 3);
const tcp = fc.constant([{ port: '80', protocol: 'TCP' }]);
const portRule = fc.oneof(
  { weight: 8, arbitrary: ports.map((list): object => ({ ports: list })) },
  {
    weight: 1,
    arbitrary: tcp.map((list): object => ({ ports: list, rules: { http: [{ method: 'GET', path: '/a.*' }] } })),
  },
  { weight: 1, arbitrary: tcp.map((list): object => ({ ports: list, serverNames: ['*.example'] })) },
);
const icmp = fc.record({ family: one('IPv4', 'IPv6'), type: one<string | number>(0, 3, 'EchoRequest', '128') });
const about = (rule: fc.Arbitrary<object>): fc.Arbitrary<object> =>
  fc.oneof(
    { weight: 3, arbitrary: fc.constant({}) },
    { weight: 6, arbitrary: some(rule).map((toPorts) => ({ toPorts })) },
    { weight: 1, arbitrary: some(icmp).map((fields) => ({ icmps: [{ fields }] })) },
  );

const merged = (...parts: fc.Arbitrary<object>[]): fc.Arbitrary<object> =>
  fc.tuple(...parts).map((all) => Object.assign({}, ...all) as object);
const authentication = fc.oneof(
  { weight: 9, arbitrary: fc.constant({}) },
  {
    weight: 1,
    arbitrary: one('required', 'disabled', 'test-always-fail').map((mode) => ({ authentication: { mode } })),
  },
);
const allowing = (prefix: 'from' | 'to', more: readonly fc.Arbitrary<object>[] = []) =>
  merged(peersOf(prefix, more), requires(prefix), about(portRule), authentication);
const denying = (prefix: 'from' | 'to', more: readonly fc.Arbitrary<object>[] = []) =>
  merged(peersOf(prefix, more), about(ports.map((list) => ({ ports: list }))));
const services = fc.constant({ toServices: [{ k8sService: { serviceName: 'a' } }] });
const names = some(domain).map((toFQDNs) => ({ toFQDNs }));

/** `api.Rule`: the `spec` of a policy. */
export const ciliumSpecArbitrary: fc.Arbitrary<object> = fc
  .record(
    {
      endpointSelector: endpointSelectorArbitrary,
      ingress: some(allowing('from')),
      ingressDeny: some(denying('from'), 1),
      egress: some(allowing('to', [services, names])),
      egressDeny: some(denying('to', [services]), 1),
      enableDefaultDeny: fc.record({ ingress: fc.boolean(), egress: fc.boolean() }, { requiredKeys: [] }),
      log: one({ value: 'seen' }, {}),
    },
    { requiredKeys: ['endpointSelector'] },
  )
  .map((spec) => {
    const lists = [spec.ingress, spec.ingressDeny, spec.egress, spec.egressDeny];
    return lists.some((list) => (list ?? []).length > 0) ? spec : { ...spec, ingress: [{}] };
  });

/** A policy of either kind in one of the namespaces of arbitraries.ts. @param name Unique in its kind and namespace. */
export function ciliumPolicyArbitrary(name: string): fc.Arbitrary<Policy> {
  const namespace = one('ns-x', 'ns-y', 'ns-z');
  return fc.tuple(one<CiliumKind>(...policyKinds), namespace, ciliumSpecArbitrary).map(([kind, own, spec]) => {
    const metadata = kind === 'CiliumNetworkPolicy' ? { name, namespace: own } : { name };
    const result = parseCiliumPolicy(kind, { metadata, spec });
    const [policy] = result.ok ? result.policies : [];
    if (policy === undefined) throw new Error(JSON.stringify({ spec, result }));
    return policy;
  });
}
