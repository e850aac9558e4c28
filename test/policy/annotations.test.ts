import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parse } from 'yaml';
import { checkPolicies } from '../../src/policy/check/check.ts';
import { settle } from '../../src/policy/istio/settle.ts';
import { policyKindOf } from '../../src/policy/kinds.ts';
import type { Policy } from '../../src/policy/rule.ts';

/** One object of each kind, each with a rule or an isolation of its own. */
const objects = [
  `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}, spec: {podSelector: {}, ingress: [{}]}}`,
  `{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: p},
    spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}`,
  `{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: p},
    spec: {endpointSelector: {}, ingress: [{fromEndpoints: [{}]}]}}`,
  `{apiVersion: cilium.io/v2, kind: CiliumClusterwideNetworkPolicy, metadata: {name: p},
    spec: {endpointSelector: {}, ingress: [{fromEndpoints: [{}]}]}}`,
  `{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: shop}, spec: {rules: [{}]}}`,
  `{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p, namespace: shop}, spec: {mtls: {mode: STRICT}}}`,
].map((text) => parse(text) as { kind: string; apiVersion: string; metadata: Record<string, unknown> });

function policyOf(object: (typeof objects)[number], annotations: Readonly<Record<string, unknown>>): Policy {
  const annotated = { ...object, metadata: { ...object.metadata, annotations } };
  const result = policyKindOf(annotated)?.parse(annotated);
  assert.ok(result?.ok === true, `${object.kind} parses`);
  const [policy] = result.policies;
  assert.ok(policy !== undefined);
  return policy;
}

test('the annotations are options of policies of every kind', () => {
  for (const object of objects) {
    const policy = policyOf(object, {
      'myelin.dev/established': 'reset',
      'myelin.dev/denied': 'reject',
      'myelin.dev/mode': 'audit',
      'myelin.dev/log': 'shop edge',
      'myelin.dev/description': 'who may call',
      'kubectl.kubernetes.io/last-applied-configuration': '{}',
    });
    assert.deepEqual(policy.options, {
      ...{ established: 'reset', denied: 'reject', mode: 'audit', log: 'shop edge', description: 'who may call' },
    });
    assert.equal(policy.limits, undefined, object.kind);
    assert.ok(policy.rules.length > 0, object.kind);
    for (const { log, description, ref } of policy.rules)
      assert.deepEqual([log, description, ref.log], ['shop edge', 'who may call', 'shop edge'], object.kind);
  }
});

test('without annotations nothing is said, and nothing changes', () => {
  for (const object of objects) {
    const policy = policyOf(object, {});
    assert.equal(policy.options, undefined, object.kind);
    assert.equal(policy.rules[0]?.ref.log, undefined);
  }
});

test('a value that is none is a limit that names the annotation and what is allowed; the default stands', () => {
  for (const object of objects) {
    const policy = policyOf(object, {
      'myelin.dev/established': 'Keep',
      'myelin.dev/denied': true,
      'myelin.dev/mode': 'off',
      'myelin.dev/log': 'two\nlines',
      'myelin.dev/descripton': 'misspelt',
    });
    assert.equal(policy.options, undefined);
    const limits = policy.limits?.map(({ field, reason }) => `${field}: ${reason}`) ?? [];
    assert.deepEqual(limits.slice(0, 4), [
      'metadata.annotations["myelin.dev/established"]: is re-evaluate or keep or reset, not "Keep"; re-evaluate stands',
      'metadata.annotations["myelin.dev/denied"]: is drop or reject, not true; drop stands',
      'metadata.annotations["myelin.dev/mode"]: is enforce or audit, not "off"; enforce stands',
      'metadata.annotations["myelin.dev/log"]: is a text of one line, at most 256 characters',
    ]);
    assert.match(limits[4] ?? '', /descripton.*policies have myelin.dev\/established/);
  }
});

test('a rule’s own text goes before the annotation’s', () => {
  const own = parse(`{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: p},
    spec: {endpointSelector: {}, log: {value: own}, ingress: [{fromEndpoints: [{}]}]}}`) as (typeof objects)[number];
  const policy = policyOf(own, { 'myelin.dev/log': 'annotated' });
  assert.deepEqual([policy.rules[0]?.log, policy.rules[0]?.ref.log, policy.options?.log], ['own', 'own', 'annotated']);
});

test('policy check names the annotation', () => {
  const [object] = objects;
  const input = { ...object, metadata: { ...object?.metadata, annotations: { 'myelin.dev/mode': 'dry' } } };
  const finding = checkPolicies([{ object: input, name: 'file' }]).findings.find(({ code }) => code === 'limit');
  assert.deepEqual(finding?.path, ['metadata', 'annotations', 'myelin.dev/mode']);
  assert.match(finding?.message ?? '', /enforce or audit/);
});

test('policy check says which option comes to nothing, because nothing is denied', () => {
  const found = (action: string) => {
    const object = {
      ...{ apiVersion: 'policy.networking.k8s.io/v1alpha2', kind: 'ClusterNetworkPolicy' },
      metadata: { name: 'p', annotations: { 'myelin.dev/denied': 'reject', 'myelin.dev/log': 'all' } },
      spec: {
        ...{ tier: 'Admin', priority: 1, subject: { namespaces: {} } },
        ingress: [{ action, from: [{ namespaces: {} }] }],
      },
    };
    return checkPolicies([{ object, name: 'file' }]).findings.map(({ path, message }) => [path.at(-1), message]);
  };
  assert.deepEqual(found('Accept'), [['myelin.dev/denied', 'comes to nothing: the policy denies nothing']]);
  assert.deepEqual(found('Deny'), []);
});

test('a PeerAuthentication that is audited overrules none that is enforced', () => {
  const strict = parse(`{apiVersion: security.istio.io/v1, kind: PeerAuthentication,
    metadata: {name: mesh, namespace: istio-system}, spec: {mtls: {mode: STRICT}}}`) as (typeof objects)[number];
  const lax = parse(`{apiVersion: security.istio.io/v1, kind: PeerAuthentication,
    metadata: {name: lax, namespace: shop}, spec: {mtls: {mode: PERMISSIVE}}}`) as (typeof objects)[number];
  const mesh = policyOf(strict, {});
  const settled = settle([mesh, policyOf(lax, { 'myelin.dev/mode': 'audit' })]);
  assert.deepEqual(settled[0]?.subject, mesh.subject);
  assert.notDeepEqual(settle([mesh, policyOf(lax, {})])[0]?.subject, mesh.subject);
});
