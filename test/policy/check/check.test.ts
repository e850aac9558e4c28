import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseAllDocuments } from 'yaml';
import { checkPolicies } from '../../../src/policy/check/check.ts';
import { parseNetworkPolicy } from '../../../src/policy/network-policy/parse.ts';
import { casePath, listCases, readCase } from '../../support/shared.ts';

/** `severity code policy field: message`, of manifests in one text. */
function found(text: string, options: Parameters<typeof checkPolicies>[1] = {}): string[] {
  const inputs = parseAllDocuments(text).map((document) => ({ object: document.toJS() as unknown, name: 'file' }));
  return checkPolicies(inputs, options).findings.map(
    ({ severity, code, policy, field, message }) => `${severity} ${code} ${policy} ${field}: ${message}`,
  );
}

function assertFound(text: string, ...expected: readonly RegExp[]): void {
  const lines = found(text);
  assert.equal(lines.length, expected.length, lines.join('\n'));
  for (const [index, pattern] of expected.entries()) assert.match(lines[index] ?? '', pattern);
}

const workloads = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: shop}
spec:
  template:
    metadata: {labels: {app: cart}}
    spec: {containers: [{ports: [{containerPort: 7070, name: grpc}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: front, namespace: shop, labels: {app: front}}
spec: {containers: [{ports: [{containerPort: 8080, name: http}]}]}
---
`;
const policy = (spec: string) =>
  `${workloads}{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, spec: ${spec}}`;
const cilium = (spec: string) =>
  `${workloads}{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: p, namespace: shop}, spec: ${spec}}`;

test('nothing is found where nothing is wrong', () => {
  assertFound(
    policy(
      '{podSelector: {matchLabels: {app: cart}}, ingress: [{from: [{podSelector: {matchLabels: {app: front}}}], ports: [{port: 7070}, {port: grpc}]}]}',
    ),
  );
});

test('fields that are not understood are errors, of every kind', () => {
  assertFound(
    policy('{podSelector: {}, ingres: []}'),
    /^error schema NetworkPolicy shop\/p spec.ingres: is not a field/,
  );
  assertFound(
    cilium('{endpointSelector: {}, ingress: [{fromEntity: []}]}'),
    /^error schema CiliumNetworkPolicy shop\/p spec.ingress\[0\].fromEntity: /,
  );
  assertFound(
    '{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: p}, spec: {tier: X, priority: 1, subject: {namespaces: {}}}}',
    /^error schema ClusterNetworkPolicy p spec.tier: /,
  );
  assertFound(
    '{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p}, spec: {action: X}}',
    /^error schema AuthorizationPolicy default\/p spec.action: /,
  );
  assertFound(
    '{apiVersion: networking.k8s.io/v1beta1, kind: NetworkPolicy, metadata: {name: p}}',
    /^error schema NetworkPolicy default\/p apiVersion: expected networking.k8s.io\/v1/,
  );
});

test('a bare list of Cilium’s rules is checked too', () => {
  assertFound(
    '[{endpointSelector: {}, ingress: [{fromEndpoint: []}]}]',
    /^error schema CiliumRule file \[0\].ingress\[0\].fromEndpoint: /,
  );
  assertFound(
    `${workloads}[{endpointSelector: {matchLabels: {"k8s:app": basket}}, ingress: [{}]}]`,
    /^warning no-pods CiliumRule file\[0\] \[0\].endpointSelector: selects no pod/,
  );
});

test('what is not enforced as it is written is said', () => {
  assertFound(
    cilium(
      '{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: "7070", protocol: TCP}], rules: {kafka: [{}]}}]}]}',
    ),
    /^warning limit CiliumNetworkPolicy shop\/p spec.egress\[0\].toPorts\[0\].rules.kafka: /,
  );
  assertFound(
    cilium(
      '{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: "7070", protocol: TCP}], rules: {http: [{path: "/é"}]}}]}]}',
    ),
    /^warning limit CiliumNetworkPolicy shop\/p spec.ingress\[0\]: it asks for characters that are not of ASCII: such/,
  );
});

test('selectors that match nothing', () => {
  assertFound(
    policy('{podSelector: {matchLabels: {app: basket}}}'),
    /^warning no-pods NetworkPolicy shop\/p spec.podSelector: selects no pod: there are no pods with app=basket/,
  );
  assertFound(
    policy('{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: frontend}}}, {podSelector: {}}]}]}'),
    /^warning no-peers NetworkPolicy shop\/p spec.ingress\[0\]: matches no pod: there are no pods with app=frontend/,
  );
  assertFound(
    cilium('{endpointSelector: {}, egressDeny: [{toEndpoints: [{matchLabels: {app: basket}}]}]}'),
    /^warning no-peers CiliumNetworkPolicy shop\/p spec.egressDeny\[0\]: /,
  );
});

test('what other files may have is not missed', () => {
  // A namespace of which these files have no pod, and one that only labels name.
  assertFound(policy('{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}}]}]}'));
  assertFound(
    cilium(
      '{endpointSelector: {}, ingress: [{fromEndpoints: [{matchLabels: {"k8s:io.kubernetes.pod.namespace": ops, app: scan}}]}]}',
    ),
  );
  assertFound(
    '{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}, spec: {podSelector: {matchLabels: {app: x}}}}',
  );
});

test('against a whole cluster, what is not there is nowhere', () => {
  const text = policy('{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}}]}]}');
  const lines = found(text, { existing: { pods: [], namespaces: new Map(), policies: [] } });
  assert.equal(lines.length, 1);
  assert.match(lines[0] ?? '', /^warning no-peers NetworkPolicy shop\/p spec.ingress\[0\]: /);
});

test('ports that no pod has', () => {
  const to = (port: string) => `{podSelector: {matchLabels: {app: cart}}, ingress: [{ports: [${port}]}]}`;
  assertFound(
    policy(to('{port: 8080}')),
    /^warning no-port NetworkPolicy shop\/p spec.ingress\[0\]: no pod that it is about has TCP 8080: they have TCP 7070 \(grpc\)/,
  );
  assertFound(policy(to('{port: web}')), /no pod that it is about has TCP web/);
  assertFound(policy(to('{port: 7070, protocol: UDP}')), /has UDP 7070/);
  assertFound(policy(to('{port: 7000, endPort: 8000}')));
  assertFound(
    policy(
      '{podSelector: {matchLabels: {app: front}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: cart}}}], ports: [{port: 80}]}]}',
    ),
    /^warning no-port NetworkPolicy shop\/p spec.egress\[0\]: no pod that it is about has TCP 80/,
  );
  // Whose ports are not known may have any.
  assertFound(
    policy(
      '{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 80}]}]}',
    ),
  );
});

test('rules that can never decide', () => {
  assertFound(
    policy('{podSelector: {}, policyTypes: [Ingress], egress: [{}]}'),
    /^warning never NetworkPolicy shop\/p spec.egress: can never decide: policyTypes does not name Egress/,
  );
  assertFound(
    cilium('{endpointSelector: {}, ingress: [{fromEntities: [none]}]}'),
    /^warning never CiliumNetworkPolicy shop\/p spec.ingress\[0\]: can never decide: it is about nobody/,
  );
  assertFound(
    cilium(
      '{endpointSelector: {}, ingress: [{fromEndpoints: [{matchLabels: {app: front}}]}], ingressDeny: [{fromEndpoints: [{}]}]}',
    ),
    /^warning never .* spec.ingress\[0\]: never decides: all that it is about is denied by CiliumNetworkPolicy shop\/p ingressDeny\[0\]/,
  );
});

test('rules that repeat another', () => {
  const rule =
    '{podSelector: {}, ingress: [{from: [{podSelector: {}}]}, {from: [{podSelector: {matchLabels: {app: front}}}]}]}';
  assertFound(
    policy(rule),
    /^warning repeated NetworkPolicy shop\/p spec.ingress\[1\]: makes no difference: .* allowed by NetworkPolicy shop\/p ingress\[0\]/,
  );
});

test('policies of the cluster stand beside those of the files, but for one that a file replaces', () => {
  const text = policy('{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: front}}}]}]}');
  const inCluster = (name: string) => {
    const metadata = { name, namespace: 'shop' };
    const result = parseNetworkPolicy({
      metadata,
      spec: { podSelector: {}, ingress: [{ from: [{ podSelector: {} }] }] },
    });
    assert.ok(result.ok);
    return { existing: { pods: [], namespaces: new Map(), policies: [result.policy] } };
  };
  assert.deepEqual(found(text, inCluster('p')), []);
  const lines = found(text, inCluster('older'));
  assert.equal(lines.length, 1);
  assert.match(
    lines[0] ?? '',
    /^warning repeated NetworkPolicy shop\/p spec.ingress\[0\]: .* NetworkPolicy shop\/older ingress\[0\]/,
  );
});

test('each spec of several is found by its place', () => {
  const text = `${workloads}{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: p, namespace: shop}, specs: [{endpointSelector: {}, ingress: [{}]}, {endpointSelector: {matchLabels: {app: x}}, ingress: [{}]}]}`;
  assertFound(text, /no-pods CiliumNetworkPolicy shop\/p specs\[1\] specs\[1\].endpointSelector: /);
});

test('published manifests: the shop’s policies fit its pods, and nothing but repetition is found in the recipes', () => {
  const shop = [
    'kubernetes-manifests.yaml',
    ...listCases('online-boutique/network-policies').map((name) => `network-policies/${name}`),
  ];
  const text = shop.map((name) => readCase(`online-boutique/${name}`)).join('\n---\n');
  assert.deepEqual(found(text), [], casePath('online-boutique'));
  const recipes = listCases('recipes').map((name) => readCase(`recipes/${name}`));
  for (const line of found(recipes.join('\n---\n'))) assert.match(line, /^warning repeated /);
});

test('whatever comes, it is answered', () => {
  fc.assert(
    fc.property(fc.array(fc.jsonValue(), { maxLength: 3 }), (values) => {
      checkPolicies(values.map((object) => ({ object, name: 'file' })));
    }),
  );
});
