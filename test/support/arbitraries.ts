import fc from 'fast-check';
import { type IpAddress, parseIp } from '../../src/model/address.ts';
import type { NamedPort, PodView } from '../../src/model/endpoint.ts';
import type { Labels } from '../../src/model/labels.ts';
import { parsePrefix, prefixWithin } from '../../src/model/prefix.ts';
import type { Direction } from '../../src/model/verdict.ts';
import type { FlowEnd, PolicyFlow, ResolvedFlow } from '../../src/policy/decide.ts';
import { settle } from '../../src/policy/istio/settle.ts';
import { parseNetworkPolicy } from '../../src/policy/network-policy/parse.ts';
import type { Policy } from '../../src/policy/rule.ts';
import type { ClusterView, NodeView } from '../../src/policy/view.ts';
import { requestArbitrary } from './http.ts';
import { manifestPoliciesArbitrary } from './manifest-arbitraries.ts';
import { domainNames, formPolicyArbitrary, nodeLabels } from './rule-arbitraries.ts';

/**
 * Random clusters, policies and flows out of alphabets small enough that things meet: labels that several pods share,
 * CIDRs that hold each other, pods, nodes and strangers in the same prefixes, ports at the edges of ranges.
 */

export const nodeNames = ['node-1', 'node-2'] as const;
const namespaceNames = ['ns-x', 'ns-y', 'ns-z'] as const;
const nodes: ReadonlyMap<string, NodeView> = new Map([
  ['node-1', { addresses: [parseIp('10.0.0.1'), parseIp('fd00::1')] }],
  ['node-2', { addresses: [parseIp('10.0.0.2'), parseIp('fd00::2')] }],
]);
const nodesArbitrary = fc
  .tuple(fc.constantFrom(...nodeLabels), fc.constantFrom(...nodeLabels))
  .map((labels) => new Map([...nodes].map(([name, own], i) => [name, { ...own, labels: labels[i] ?? {} }])));

/** Pod addresses: 10.0.1.0 to 10.0.1.15 and fd00:0:0:1::0 to ::f. */
const slots = 16;
const maxPods = 8;
const podAddress = (slot: number, family: 4 | 6): IpAddress =>
  parseIp(family === 4 ? `10.0.1.${slot}` : `fd00:0:0:1::${slot.toString(16)}`);

const cidrs = [
  '0.0.0.0/0',
  '10.0.0.0/8',
  '10.0.0.0/24',
  '10.0.0.2/32',
  '10.0.1.0/24',
  '10.0.1.0/29',
  '10.0.1.4/30',
  '10.0.1.5/32',
  '10.0.2.0/24',
  '192.0.2.0/24',
  '192.0.2.128/25',
  '192.0.2.7/32',
  '::/0',
  'fd00::/16',
  'fd00::/64',
  'fd00:0:0:1::/64',
  'fd00:0:0:1::/125',
  'fd00:0:0:1::5/128',
  '2001:db8::/32',
  '2001:db8:0:1::/64',
].map(parsePrefix);
const strangers = [
  '10.0.1.9',
  '10.0.2.9',
  '192.0.2.7',
  '192.0.2.200',
  '8.8.8.8',
  'fd00:0:0:1::9',
  'fd00:9::9',
  '2001:db8::7',
  '2001:db8:0:1::7',
  '::7',
].map(parseIp);

const ports = [0, 1, 53, 79, 80, 81, 443, 1023, 1024, 8080, 32768, 65535];
const transports = ['TCP', 'UDP', 'SCTP'] as const;
const portNames = ['web', 'dns'] as const;

function seldom<T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> {
  return fc.oneof({ weight: 11, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary });
}

function often<T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> {
  return fc.oneof({ weight: 1, arbitrary: fc.constant(undefined) }, { weight: 2, arbitrary });
}

export const labelsArbitrary: fc.Arbitrary<Labels> = fc
  .record(
    {
      app: fc.constantFrom('a', 'b', 'c'),
      tier: fc.constantFrom('x', 'y'),
      // Names that plain objects have by birth, and one that classes leave out unless a policy names it.
      constructor: fc.constantFrom('p', 'q'),
      'pod-template-hash': fc.constantFrom('h1', 'h2'),
    },
    { requiredKeys: [] },
  )
  .map((labels) => ({ ...labels }));

const requirementArbitrary = fc.oneof(
  fc.record({
    key: fc.constantFrom('app', 'tier', 'constructor', 'pod-template-hash', 'absent'),
    operator: fc.constantFrom('In', 'NotIn'),
    values: fc.subarray(['a', 'b', 'x', 'p', 'h1'], { minLength: 1 }),
  }),
  fc.record({
    key: fc.constantFrom('app', 'tier', 'constructor', 'toString', 'pod-template-hash'),
    operator: fc.constantFrom('Exists', 'DoesNotExist'),
  }),
);

const oneLabel = fc.oneof(
  fc.constantFrom('a', 'b', 'c').map((app): Labels => ({ app })),
  fc.constantFrom('x', 'y').map((tier): Labels => ({ tier })),
);

/** A LabelSelector as it stands in a manifest; mostly one that selects somebody. */
export const selectorArbitrary = fc.oneof(
  { weight: 3, arbitrary: fc.constant({}) },
  { weight: 4, arbitrary: fc.record({ matchLabels: oneLabel }) },
  { weight: 3, arbitrary: fc.record({ matchExpressions: fc.tuple(requirementArbitrary) }) },
  {
    weight: 1,
    arbitrary: fc.record(
      { matchLabels: labelsArbitrary, matchExpressions: fc.array(requirementArbitrary, { maxLength: 2 }) },
      { requiredKeys: [] },
    ),
  },
);

const ipBlockArbitrary = fc.constantFrom(...cidrs).chain((cidr) => {
  const inner = cidrs.filter((other) => other !== cidr && prefixWithin(other, cidr));
  return fc.record(
    { cidr: fc.constant(cidr), except: fc.subarray(inner, { maxLength: Math.min(3, inner.length) }) },
    { requiredKeys: ['cidr'] },
  );
});

const peerArbitrary = fc.oneof(
  fc.record({ podSelector: selectorArbitrary }),
  fc.record({ namespaceSelector: selectorArbitrary }),
  fc.record({ podSelector: selectorArbitrary, namespaceSelector: selectorArbitrary }),
  fc.record({ ipBlock: ipBlockArbitrary }),
);

const protocolArbitrary = fc.constantFrom(...transports);
const positivePorts = ports.filter((port) => port > 0);
const portArbitrary = fc.oneof(
  fc.record({ protocol: protocolArbitrary }, { requiredKeys: [] }),
  fc.record({ protocol: protocolArbitrary, port: fc.constantFrom(...positivePorts) }, { requiredKeys: ['port'] }),
  fc.record({ protocol: protocolArbitrary, port: fc.constantFrom(...portNames) }, { requiredKeys: ['port'] }),
  fc
    .tuple(fc.constantFrom(...positivePorts), fc.constantFrom(...positivePorts), protocolArbitrary)
    .map(([a, b, protocol]) => ({ protocol, port: Math.min(a, b), endPort: Math.max(a, b) })),
);

const peersArbitrary = fc.array(peerArbitrary, { maxLength: 3 });
const portsArbitrary = fc.array(portArbitrary, { maxLength: 3 });

function rulesOf<T>(rule: fc.Arbitrary<T>): fc.Arbitrary<T[]> {
  return fc.array(rule, { maxLength: 3, size: 'max' });
}

/** The `spec` of a NetworkPolicy as it stands in a manifest; always valid. */
export const networkPolicySpecArbitrary = fc.record(
  {
    podSelector: selectorArbitrary,
    policyTypes: fc.subarray(['Ingress', 'Egress']),
    ingress: rulesOf(fc.record({ from: peersArbitrary, ports: portsArbitrary }, { requiredKeys: [] })),
    egress: rulesOf(fc.record({ to: peersArbitrary, ports: portsArbitrary }, { requiredKeys: [] })),
  },
  { requiredKeys: ['podSelector'] },
);

const networkPolicyArbitrary = fc
  .record({ namespace: fc.constantFrom(...namespaceNames), spec: networkPolicySpecArbitrary })
  .map(({ namespace, spec }) => (name: string): Policy => {
    const result = parseNetworkPolicy({ metadata: { name, namespace }, spec });
    if (!result.ok) throw new Error(`a generated policy does not parse: ${JSON.stringify(result.issues)}`);
    return result.policy;
  });

const namedPortsArbitrary: fc.Arbitrary<readonly NamedPort[]> = fc.array(
  fc
    .record({
      name: fc.constantFrom(...portNames),
      protocol: protocolArbitrary,
      port: fc.constantFrom(53, 80, 443, 8080),
    })
    .map((named) => ({ ...named })),
  { maxLength: 3 },
);

const podArbitrary = fc
  .record({
    stolenSlot: seldom(fc.nat(slots - 1)),
    namespace: fc.constantFrom(...namespaceNames),
    serviceAccount: fc.constantFrom('default', 'other'),
    node: fc.constantFrom(...nodeNames),
    labels: labelsArbitrary,
    families: fc.constantFrom<readonly (4 | 6)[]>([4, 6], [4, 6], [4, 6], [4, 6], [4], [6], []),
    namedPorts: namedPortsArbitrary,
    hostNetwork: seldom(fc.constant(true)),
  })
  .map(({ stolenSlot, families, hostNetwork = false, ...pod }) => (uid: string, slot: number): PodView => {
    const addresses = hostNetwork
      ? (nodes.get(pod.node)?.addresses ?? [])
      : families.map((family) => podAddress(stolenSlot ?? slot, family));
    return { ...pod, hostNetwork, uid, name: uid, addresses };
  });

/** Mostly true pods; now and then two claim one address. */
export const podsArbitrary: fc.Arbitrary<ReadonlyMap<string, PodView>> = fc
  .array(podArbitrary, { minLength: 2, maxLength: maxPods, size: 'max' })
  .map((makers) => new Map(makers.map((make, i) => [`pod-${i}`, make(`pod-${i}`, i)])));

/** @param tiered Whether to add the other kinds, and policies in the rule form that no kind makes. */
export function policiesArbitrary(options: { tiered?: boolean; maxLength?: number } = {}): fc.Arbitrary<Policy[]> {
  const plain = networkPolicyArbitrary.map((make) => (name: string) => [make(name)]);
  const formed = formPolicyArbitrary.map((make) => (name: string) => [make(name)]);
  const one = options.tiered ? fc.oneof(plain, formed, manifestPoliciesArbitrary) : plain;
  return (
    fc
      .array(one, { maxLength: options.maxLength ?? 5, size: 'max' })
      // Names in the reverse order of the list, so that sorting by name shows.
      .map((makers) => [...settle(makers.flatMap((make, i) => make(`policy-${makers.length - i}`)))])
  );
}

export const settingsArbitrary: fc.Arbitrary<ClusterView['settings']> = fc
  .record({
    defaultDeny: seldom(fc.constant(true)),
    namespaceDefaultDeny: seldom(fc.constantFrom(new Map([['ns-x', true]]), new Map([['ns-x', false]]))),
    podCidrs: often(fc.constant(['10.0.1.0/24', 'fd00:0:0:1::/64'].map(parsePrefix))),
    serviceCidrs: seldom(
      fc.constantFrom(['10.0.2.0/24'].map(parsePrefix), ['10.0.1.0/24', 'fd00:9::/64'].map(parsePrefix)),
    ),
    trustDomain: seldom(fc.constant('td')),
  })
  .map((settings) => Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined)));

export const namespacesArbitrary: fc.Arbitrary<ReadonlyMap<string, Labels>> = fc
  .tuple(labelsArbitrary, labelsArbitrary, fc.option(labelsArbitrary, { nil: undefined, freq: 9 }))
  .map(
    (labels) =>
      // A namespace may be not known yet.
      new Map(
        namespaceNames.flatMap((name, i): [string, Labels][] => (labels[i] === undefined ? [] : [[name, labels[i]]])),
      ),
  );

export function viewArbitrary(options: { tiered?: boolean; maxPolicies?: number } = {}): fc.Arbitrary<ClusterView> {
  const { tiered = true, maxPolicies = 5 } = options;
  return fc.record({
    pods: podsArbitrary,
    namespaces: namespacesArbitrary,
    nodes: nodesArbitrary,
    policies: policiesArbitrary({ tiered, maxLength: maxPolicies }),
    settings: settingsArbitrary,
  });
}

/** What may happen to a cluster from one moment to the next. */
const editArbitrary: fc.Arbitrary<(view: ClusterView, nth: number) => ClusterView> = fc.oneof(
  fc.record({ at: fc.nat(maxPods - 1), make: podArbitrary }).map(({ at, make }) => (view: ClusterView) => {
    const uid = [...view.pods.keys()][at] ?? `pod-${at}`;
    return { ...view, pods: new Map([...view.pods, [uid, make(uid, at)]]) };
  }),
  fc.record({ at: fc.nat(maxPods - 1), labels: labelsArbitrary }).map(({ at, labels }) => (view: ClusterView) => {
    const own = [...view.pods.values()][at];
    return own === undefined ? view : { ...view, pods: new Map([...view.pods, [own.uid, { ...own, labels }]]) };
  }),
  fc.nat(maxPods - 1).map((at) => (view: ClusterView) => {
    const left = [...view.pods].filter((_, i) => i !== at);
    return left.length === 0 ? view : { ...view, pods: new Map(left) };
  }),
  fc
    .record({ at: fc.nat(4), make: networkPolicyArbitrary })
    .map(({ at, make }) => (view: ClusterView, nth: number) => ({
      ...view,
      policies: [...view.policies.filter((_, i) => i !== at), make(`edit-${nth}`)],
    })),
  fc.nat(4).map((at) => (view: ClusterView) => ({ ...view, policies: view.policies.filter((_, i) => i !== at) })),
  fc
    .record({ name: fc.constantFrom(...namespaceNames), labels: labelsArbitrary })
    .map(({ name, labels }) => (view: ClusterView) => ({
      ...view,
      namespaces: new Map([...view.namespaces, [name, labels]]),
    })),
);

/** A cluster through time: from one view to the next a few things change, and all others stay the same objects. */
export function historyArbitrary(options: { tiered?: boolean } = {}): fc.Arbitrary<ClusterView[]> {
  const edits = fc.array(fc.array(editArbitrary, { minLength: 1, maxLength: 2 }), { minLength: 1, maxLength: 4 });
  return fc.tuple(viewArbitrary(options), edits).map(([first, all]) => {
    const views = [first];
    for (const [nth, some] of all.entries())
      views.push(some.reduce((view, edit) => edit(view, nth), views.at(-1) ?? first));
    return views;
  });
}

/** One end of a flow, apart from any view: so flows and views shrink independently of each other. */
type EndSpec = { readonly nthPod: number } | Exclude<FlowEnd, { readonly pod: string }>;

const endArbitrary: fc.Arbitrary<EndSpec> = fc.oneof(
  { weight: 12, arbitrary: fc.noBias(fc.nat(maxPods - 1)).map((nthPod) => ({ nthPod })) },
  { weight: 1, arbitrary: fc.constantFrom(...nodeNames).map((host) => ({ host })) },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.nat(slots - 1), fc.constantFrom<4 | 6>(4, 6))
      .map(([slot, family]) => ({ address: podAddress(slot, family) })),
  },
  { weight: 2, arbitrary: fc.constantFrom(...strangers).map((address) => ({ address })) },
);

/** Protocols with ports, without, and one that has no name here. */
export const protocolsArbitrary = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom<PolicyFlow['protocol']>('TCP', 'UDP', 'SCTP') },
  { weight: 1, arbitrary: fc.constantFrom<PolicyFlow['protocol']>('ICMP', 'ICMPv6', 47) },
);

type FlowSpec = Omit<PolicyFlow, 'source' | 'destination'> & {
  readonly source: EndSpec;
  readonly destination: EndSpec;
};

const flowArbitrary: fc.Arbitrary<FlowSpec> = fc
  .record({
    source: endArbitrary,
    destination: endArbitrary,
    protocol: protocolsArbitrary,
    port: fc.oneof(fc.constantFrom(...ports), fc.integer({ min: 0, max: 65535 })),
    family: fc.constantFrom<4 | 6>(4, 6),
    names: fc.subarray([...domainNames], { maxLength: 2 }),
    request: fc.option(requestArbitrary, { nil: undefined }),
  })
  .map(({ request, ...flow }) => ({
    ...flow,
    ...(request === undefined || flow.protocol !== 'TCP' ? {} : { request }),
  }))
  .map((flow) => (typeof flow.protocol === 'number' || flow.protocol.startsWith('ICMP') ? { ...flow, port: 0 } : flow));

/**
 * Flows for any view, to be made concrete by `flowsIn`. Portless protocols have port 0.
 * @param options.named Whether addresses have been learnt under names.
 * @param options.requests Whether HTTP requests of TCP connections are known, of half of them.
 */
export function flowsArbitrary(
  count = 30,
  { named = false, requests = false }: { named?: boolean; requests?: boolean } = {},
): fc.Arbitrary<FlowSpec[]> {
  const flows = flowArbitrary.map(({ names, request, ...flow }) => ({
    ...flow,
    ...(named ? { names } : {}),
    ...(requests && request !== undefined ? { request } : {}),
  }));
  return fc.array(flows, { minLength: 1, maxLength: count, size: 'max' });
}

/** A flow as one side can tell it: requests are read by the side that answers them. */
export function seenBy(direction: Direction, { request, ...flow }: ResolvedFlow): ResolvedFlow {
  return direction === 'egress' || request === undefined ? flow : { ...flow, request };
}

/** The flows between the pods, nodes and addresses of this view. */
export function flowsIn(view: ClusterView, specs: readonly FlowSpec[]): PolicyFlow[] {
  const pods = [...view.pods.keys()];
  const end = (spec: EndSpec): FlowEnd => ('nthPod' in spec ? { pod: pods[spec.nthPod % pods.length] ?? '' } : spec);
  return specs.map((flow) => ({ ...flow, source: end(flow.source), destination: end(flow.destination) }));
}
