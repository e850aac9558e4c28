import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { policyResources } from '../../src/api/kinds.ts';
import { loadManifests } from '../../src/api/manifest.ts';
import { causesOf, TestApi } from './harness.ts';
import { findKubectls, Kubectl } from './kubectl.ts';

const valid = `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: p, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: cart}}
  ingress:
  - fromEndpoints: [{matchLabels: {"k8s:app": front}}]
    toPorts: [{ports: [{port: "7070", protocol: TCP}]}]
  ingressDeny: [{fromEntities: [world]}]
---
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: p}
specs:
- endpointSelector: {}
  enableDefaultDeny: {ingress: false}
  ingress: [{fromEntities: [host]}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: p}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {}}
  ingress: [{action: Accept, from: [{namespaces: {}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: default}
spec: {action: ALLOW, rules: [{from: [{source: {namespaces: [shop]}}]}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: p, namespace: default}
spec: {mtls: {mode: STRICT}}
`;

test('policies of every kind are served: written, read back as they were, changed and deleted by kubectl', async (t) => {
  const api = await TestApi.start(t);
  for (const binary of findKubectls()) {
    const kubectl = new Kubectl(binary, api);
    const file = join(api.directory, 'policies.yaml');
    writeFileSync(file, valid);
    const applied = await kubectl.try('apply', '-f', file);
    assert.equal(applied.code, 0, applied.err);
    for (const { plural, group } of policyResources) {
      const read = await kubectl.try('get', `${plural}.${group}`, 'p', '-o', 'json');
      assert.equal(read.code, 0, read.err);
    }
    assert.match((await kubectl.try('get', 'cnp')).out, /^NAME +ENFORCED +AGE\np +True/);
    assert.match((await kubectl.try('get', 'ccnp', 'p', '-o', 'yaml')).out, /enableDefaultDeny:\n {4}ingress: false/);

    writeFileSync(file, valid.replaceAll('7070', '7071'));
    const changed = await kubectl.try('apply', '-f', file);
    assert.match(changed.out, /ciliumnetworkpolicy.cilium.io\/p configured/, changed.err);
    assert.match(changed.out, /ciliumclusterwidenetworkpolicy.cilium.io\/p unchanged/);
    assert.match(
      (await kubectl.try('get', 'cnp', 'p', '-o', 'jsonpath={.spec.ingress[0].toPorts[0].ports[0].port}')).out,
      /^7071$/,
    );
    const deleted = await kubectl.try('delete', '-f', file);
    assert.equal(deleted.code, 0, deleted.err);
  }
});

const wrong: readonly [path: string, body: object, cause: RegExp][] = [
  [
    'cilium.io/v2/namespaces/default/ciliumnetworkpolicies',
    { kind: 'CiliumNetworkPolicy', spec: { endpointSelector: {}, ingress: [{ fromPods: [] }] } },
    /^spec.ingress\[0\].fromPods: /,
  ],
  [
    'cilium.io/v2/namespaces/default/ciliumnetworkpolicies',
    { kind: 'CiliumNetworkPolicy', spec: { endpointSelector: {}, ingress: [{ fromEntities: ['everyone'] }] } },
    /^spec.ingress\[0\].fromEntities\[0\]: FieldValueInvalid$/,
  ],
  ['cilium.io/v2/namespaces/default/ciliumnetworkpolicies', { kind: 'CiliumNetworkPolicy' }, /^: FieldValue/],
  [
    'cilium.io/v2/ciliumclusterwidenetworkpolicies',
    {
      kind: 'CiliumClusterwideNetworkPolicy',
      spec: { endpointSelector: {}, ingress: [{ toPorts: [{ ports: [{ port: 80 }] }] }] },
    },
    /^spec.ingress\[0\].toPorts\[0\].ports\[0\].port: FieldValueInvalid$/,
  ],
  [
    'policy.networking.k8s.io/v1alpha2/clusternetworkpolicies',
    { kind: 'ClusterNetworkPolicy', spec: { tier: 'Middle', priority: 1, subject: { namespaces: {} } } },
    /^spec.tier: FieldValueInvalid$/,
  ],
  [
    'security.istio.io/v1/namespaces/default/authorizationpolicies',
    { kind: 'AuthorizationPolicy', spec: { action: 'PERHAPS' } },
    /^spec.action: FieldValueInvalid$/,
  ],
];

test('what a kind’s front end does not understand is refused with the field', async (t) => {
  const api = await TestApi.start(t);
  for (const [path, body, cause] of wrong) {
    const [group = '', version = ''] = path.split('/');
    const object = { apiVersion: `${group}/${version}`, metadata: { name: 'p' }, ...body };
    const answer = await api.raw(`/apis/${path}`, { method: 'POST', body: object });
    assert.equal(answer.status, 422, JSON.stringify(answer));
    assert.match(causesOf(answer).join(), cause, JSON.stringify(body));
  }
});

test('kubectl is told which fields only close', async (t) => {
  const api = await TestApi.start(t);
  const file = join(api.directory, 'kafka.yaml');
  const kafka = ', rules: {kafka: [{topic: orders}]}';
  writeFileSync(file, valid.split('---')[0]?.replace('protocol: TCP}]', `protocol: TCP}]${kafka}`) ?? '');
  for (const binary of findKubectls()) {
    const kubectl = new Kubectl(binary, api);
    const { code, err } = await kubectl.try('apply', '-f', file);
    assert.equal(code, 0, err);
    assert.match(err, /Warning: spec\.ingress\[0\]\.toPorts\[0\]\.rules\.kafka: .* allows nothing/);
    await kubectl.try('delete', '-f', file);
  }
});

test('Istio’s older version is the same kind under another name', async (t) => {
  const api = await TestApi.start(t);
  const [binary] = findKubectls();
  assert.ok(binary !== undefined);
  const kubectl = new Kubectl(binary, api);
  const file = join(api.directory, 'older.yaml');
  writeFileSync(
    file,
    `apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata: {name: older, namespace: default}
spec: {action: DENY, rules: [{}]}
`,
  );
  const applied = await kubectl.try('apply', '-f', file);
  assert.equal(applied.code, 0, applied.err);
  for (const version of ['v1', 'v1beta1']) {
    const plural = `authorizationpolicies.${version}.security.istio.io`;
    const read = await kubectl.try('get', plural, 'older', '-o', 'jsonpath={.apiVersion} {.spec.action}');
    assert.equal(read.out, `security.istio.io/${version} DENY`, read.err);
  }
  assert.match((await kubectl.try('get', 'ap')).out, /^NAME +ACTION +ENFORCED +AGE\nolder +DENY +True/);
  const [manifest] = loadManifests([file]);
  assert.deepEqual([manifest?.resource.version, manifest?.object.apiVersion], ['v1', 'security.istio.io/v1']);
});
