import assert from 'node:assert/strict';
import fc from 'fast-check';
import { formatIssues } from '../../src/policy/issues.ts';
import { policyKindOf } from '../../src/policy/kinds.ts';
import type { Policy } from '../../src/policy/rule.ts';

/**
 * Manifests of those kinds that are not NetworkPolicy, always valid, as their parsers take them in: what the four APIs
 * say together is asked of clusters that have all of them. The words are those of arbitraries.ts.
 */

const app = fc.constantFrom('a', 'b', 'c');
const namespace = fc.constantFrom('ns-x', 'ns-y', 'ns-z');
const selector = fc.oneof(
  fc.constant({}),
  app.map((value) => ({ matchLabels: { app: value } })),
  fc.constantFrom('x', 'y').map((tier) => ({ matchLabels: { tier } })),
);
const cidrs = ['10.0.1.0/29', '10.0.0.0/8', '192.0.2.0/24', '2001:db8::/32', 'fd00:0:0:1::/64', '0.0.0.0/0'] as const;
const cidr = fc.constantFrom(...cidrs);
const port = fc.constantFrom(53, 80, 443, 8080);

/** At least one, each once. */
function some<T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T[]> {
  return fc.uniqueArray(arbitrary, { minLength: 1, maxLength: 2, selector: (one) => JSON.stringify(one) });
}

function optional(model: Readonly<Record<string, fc.Arbitrary<unknown>>>): fc.Arbitrary<object> {
  return fc.record(model, { requiredKeys: [] }).map((made) => ({ ...made }));
}

// ClusterNetworkPolicy

const namespacedPod = fc.record({ namespaceSelector: selector, podSelector: selector });
const clusterPeer = fc.oneof(
  selector.map((namespaces) => ({ namespaces })),
  namespacedPod.map((pods) => ({ pods })),
);
const clusterProtocols = fc.array(
  fc.oneof(
    port.map((number) => ({ tcp: { destinationPort: { number } } })),
    fc.constant({ udp: { destinationPort: { range: { start: 50, end: 100 } } } }),
    fc.constant({ sctp: { destinationPort: { number: 80 } } }),
  ),
  { minLength: 1, maxLength: 2 },
);
const clusterRule = (peers: 'from' | 'to', peer: fc.Arbitrary<unknown>) =>
  fc
    .tuple(
      fc.constantFrom('Accept', 'Deny', 'Pass'),
      fc.array(peer, { minLength: 1, maxLength: 2 }),
      fc.option(clusterProtocols, { nil: undefined }),
    )
    .map(([action, list, protocols]) => ({ action, [peers]: list, ...(protocols === undefined ? {} : { protocols }) }));
const clusterNetworkPolicy = fc
  .record({
    tier: fc.constantFrom('Admin', 'Baseline'),
    priority: fc.nat(2),
    subject: clusterPeer,
    ingress: fc.array(clusterRule('from', clusterPeer), { maxLength: 2 }),
    egress: fc.array(
      clusterRule(
        'to',
        fc.oneof(
          clusterPeer,
          fc.constantFrom({}, { matchLabels: { zone: 'a' } }).map((nodes) => ({ nodes })),
          some(cidr).map((networks) => ({ networks })),
        ),
      ),
      { maxLength: 2 },
    ),
  })
  .map((spec) => ({ apiVersion: 'policy.networking.k8s.io/v1alpha2', kind: 'ClusterNetworkPolicy', spec }));

// Cilium

const endpoint = fc.oneof(
  selector,
  app.map((value) => ({ matchLabels: { 'k8s:app': value } })),
  namespace.map((name) => ({ matchLabels: { 'k8s:io.kubernetes.pod.namespace': name } })),
);
const entity = fc.constantFrom('all', 'world', 'cluster', 'host', 'remote-node', 'none');
const ciliumPorts = fc.oneof(
  fc
    .record({ port: port.map(String), protocol: fc.constantFrom('TCP', 'UDP', 'ANY', 'SCTP') })
    .map((one) => [{ ports: [one] }]),
  fc.constant([{ ports: [{ port: '50', endPort: 90, protocol: 'TCP' }] }]),
);
const ciliumRule = (way: 'from' | 'to') =>
  fc
    .tuple(
      fc.oneof(
        some(endpoint).map((list) => ({ [`${way}Endpoints`]: list })),
        some(entity).map((list) => ({ [`${way}Entities`]: list })),
        some(cidr).map((list) => ({ [`${way}CIDR`]: list })),
        fc.constant({ [`${way}CIDRSet`]: [{ cidr: '10.0.0.0/8', except: ['10.0.1.0/29'] }] }),
        fc.constant({}),
      ),
      fc.oneof(
        fc.constant({}),
        ciliumPorts.map((toPorts) => ({ toPorts })),
      ),
      fc.constantFrom({}, {}, {}, { icmps: [{ fields: [{ type: 8, family: 'IPv4' }] }] }),
    )
    .map(([peers, ports, icmps]) => ({ ...peers, ...('toPorts' in ports ? ports : icmps) }));
const ciliumRules = (way: 'from' | 'to') => fc.array(ciliumRule(way), { minLength: 1, maxLength: 2 });
const ciliumSpec = optional({
  ingress: ciliumRules('from'),
  egress: ciliumRules('to'),
  ingressDeny: ciliumRules('from'),
  egressDeny: ciliumRules('to'),
});
const ciliumPolicy = fc
  .tuple(fc.boolean(), selector, ciliumSpec, namespace)
  .filter(([, , rules]) => Object.keys(rules).length > 0)
  .map(([clusterwide, endpointSelector, rules, own]) => ({
    apiVersion: 'cilium.io/v2',
    kind: clusterwide ? 'CiliumClusterwideNetworkPolicy' : 'CiliumNetworkPolicy',
    metadata: clusterwide ? {} : { namespace: own },
    spec: { endpointSelector, ...rules },
  }));

// Istio

const istioSource = optional({
  principals: some(fc.constantFrom('cluster.local/ns/ns-x/sa/default', '*/sa/other', '*')),
  notPrincipals: some(fc.constantFrom('cluster.local/ns/ns-y/sa/other', 'cluster.local/*')),
  namespaces: some(fc.constantFrom('ns-x', 'ns-*', '*-y')),
  notNamespaces: some(namespace),
  ipBlocks: some(cidr),
  notIpBlocks: some(cidr),
}).filter((source) => Object.keys(source).length > 0);
const istioOperation = optional({
  ports: some(fc.constantFrom('53', '80', '443')),
  notPorts: some(fc.constantFrom('80', '8080')),
  methods: some(fc.constantFrom('GET', 'POST')),
}).filter((operation) => Object.keys(operation).length > 0);
const istioSelector = app.map((value) => ({ selector: { matchLabels: { app: value } } }));
const root = fc.constantFrom('ns-x', 'ns-y', 'ns-z', 'istio-system');
const authorizationPolicy = fc
  .constantFrom('ALLOW', 'ALLOW', 'DENY', 'AUDIT')
  .chain((action) =>
    fc.record({
      namespace: root,
      selected: fc.oneof(fc.constant({}), istioSelector),
      action: fc.constant(action),
      rules: fc.array(
        optional({
          from: fc.array(
            istioSource.map((source) => ({ source })),
            { minLength: 1, maxLength: 2 },
          ),
          to: fc.array(
            istioOperation.map((operation) => ({ operation })),
            { minLength: 1, maxLength: 2 },
          ),
        }),
        { minLength: action === 'ALLOW' ? 0 : 1, maxLength: 2 },
      ),
    }),
  )
  .map(({ namespace: own, selected, action, rules }) => ({
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { namespace: own },
    spec: { ...selected, action, rules },
  }));
const mode = fc.constantFrom('STRICT', 'PERMISSIVE', 'UNSET');
const peerAuthentication = fc
  .record({ namespace: root, selected: fc.oneof(fc.constant({}), istioSelector), mode, ported: mode })
  .map(({ namespace: own, selected, mode: whole, ported }) => ({
    apiVersion: 'security.istio.io/v1',
    kind: 'PeerAuthentication',
    metadata: { namespace: own },
    spec: {
      ...(own === 'istio-system' ? {} : selected),
      mtls: { mode: whole },
      ...('selector' in selected && own !== 'istio-system' ? { portLevelMtls: { '80': { mode: ported } } } : {}),
    },
  }));

/** A manifest, parsed under a name that is given to it. PeerAuthentications are still to be settled. */
export const manifestPoliciesArbitrary: fc.Arbitrary<(name: string) => readonly Policy[]> = fc
  .oneof<fc.Arbitrary<object>[]>(
    clusterNetworkPolicy,
    clusterNetworkPolicy,
    ciliumPolicy,
    ciliumPolicy,
    authorizationPolicy,
    authorizationPolicy,
    peerAuthentication,
  )
  .map((object) => (name: string): readonly Policy[] => {
    const metadata = { ...('metadata' in object ? (object.metadata as object) : {}), name };
    const whole = { apiVersion: '', kind: '', ...object, metadata };
    const result = policyKindOf(whole)?.parse(whole);
    assert.ok(result !== undefined);
    if (!result.ok) assert.fail(`a generated policy does not parse: ${formatIssues(result.issues)}`);
    return result.policies;
  });
