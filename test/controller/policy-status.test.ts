import assert from 'node:assert/strict';
import { test } from 'node:test';
import { installDefinitions } from '../../src/api/definitions.ts';
import type { Condition } from '../../src/api/kinds.ts';
import { ownKinds, policyResources } from '../../src/api/kinds.ts';
import { conditionsOf, PolicyStatusController, standing } from '../../src/controller/policy-status.ts';
import { policyKindOf } from '../../src/policy/kinds.ts';
import { eventually, silent, TestApi } from '../api/harness.ts';

const policy = (spec: object) => ({
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: { namespace: 'shop', name: 'cart' },
  spec,
});
function understanding(raw: { apiVersion: string; kind: string }, present: readonly Condition[], at: Date) {
  const kind = policyKindOf(raw);
  assert.ok(kind !== undefined);
  const conditions = standing(kind, raw, present, at);
  assert.ok(conditions.length <= 1);
  return conditions[0];
}

const now = new Date('2026-01-02T03:04:05.678Z');
const broken = policy({ podSelector: {}, ingress: [{ from: [{ workloadSelector: {} }] }] });

test('a policy that is understood gets no status', () => {
  assert.equal(understanding(policy({ podSelector: {} }), [], now), undefined);
});

test('a policy that is not understood says so, names the field, and says what it does meanwhile', () => {
  const condition = understanding(broken, [], now);
  assert.equal(condition?.status, 'False');
  assert.equal(condition?.lastTransitionTime, '2026-01-02T03:04:05Z');
  assert.match(condition?.message ?? '', /denies all traffic.*spec\.ingress\[0\]\.from\[0\]/);
});

test('what is said already is not said again, and is taken back once it is mended', () => {
  const said = understanding(broken, [], now);
  assert.ok(said !== undefined);
  assert.equal(understanding(broken, [said], now), undefined);
  assert.equal(understanding(policy({ podSelector: {} }), [said], now)?.status, 'True');
});

test('what is said already is found on a policy of which nothing else is understood', () => {
  const said = understanding(broken, [], now);
  const foreign = { ...policy({ ingress: 7 }), status: { conditions: [said] } };
  assert.deepEqual(conditionsOf(foreign), [said]);
});

const limited = {
  apiVersion: 'cilium.io/v2',
  kind: 'CiliumNetworkPolicy',
  metadata: { namespace: 'shop', name: 'cart' },
  spec: {
    endpointSelector: {},
    ingress: [{ fromCIDRSet: [{ cidrGroupRef: 'partners' }] }],
  },
};

test('a policy that is not enforced as it is written says which field, and what happens instead', () => {
  const condition = understanding(limited, [], now);
  assert.deepEqual([condition?.type, condition?.status, condition?.reason], ['Enforced', 'False', 'Limited']);
  assert.match(
    condition?.message ?? '',
    /spec\.ingress\[0\]\.fromCIDRSet\[0\]\.cidrGroupRef: .*nobody is allowed by it/,
  );
  assert.ok(condition !== undefined);
  assert.equal(understanding(limited, [condition], now), undefined);
  const mended = { ...limited, spec: { endpointSelector: {}, ingress: [{}] } };
  assert.equal(understanding(mended, [condition], now)?.status, 'True');
});

test('of many limits the first are told and the others counted', () => {
  const fromCIDRSet = Array(30).fill(limited.spec.ingress[0]?.fromCIDRSet[0]);
  const many = { ...limited, spec: { endpointSelector: {}, ingress: [{ fromCIDRSet }] } };
  assert.match(understanding(many, [], now)?.message ?? '', /fromCIDRSet\[9\].*; and 20 more$/);
});

test('where a policy stops being understood, nothing more is said of how it is enforced', () => {
  const said = understanding(limited, [], now);
  assert.ok(said !== undefined);
  const kind = policyKindOf(limited);
  assert.ok(kind !== undefined);
  const worse = { ...limited, spec: { ...limited.spec, color: 'red' } };
  const types = standing(kind, worse, [said], now).map(({ type, status }) => `${type}=${status}`);
  assert.deepEqual(types, ['Understood=False']);
});

test('a status is by the cluster’s own root namespace, and follows it', async (t) => {
  const api = await TestApi.start(t);
  await installDefinitions(api.client);
  const resource = policyResources.find(({ kind }) => kind === 'PeerAuthentication');
  assert.ok(resource !== undefined);
  const apiVersion = 'security.istio.io/v1';
  const spec = { selector: { matchLabels: { app: 'web' } }, mtls: { mode: 'STRICT' } };
  const body = { apiVersion, kind: 'PeerAuthentication', metadata: { name: 'p' }, spec };
  const path = `/apis/${apiVersion}/namespaces/default/${resource.plural}`;
  assert.equal((await api.raw(path, { method: 'POST', body })).status, 201);
  const enforced = async () => {
    const list = await api.client.list(resource);
    return list.entries.flatMap(({ raw }) => conditionsOf(raw)).find(({ type }) => type === 'Enforced')?.status;
  };
  const settings = (root: string) => ({
    ...{ apiVersion: 'myelin.dev/v1alpha1', kind: 'ClusterSettings' },
    ...{ metadata: { name: 'default' }, spec: { istioRootNamespace: root } },
  });
  await api.client.create(ownKinds.ClusterSettings, ownKinds.ClusterSettings.schema.parse(settings('default')));
  const controller = new PolicyStatusController({ api: api.client, logger: silent, trustDomain: 'cluster.local' });
  t.after(() => controller.close());
  controller.start();
  await eventually(
    async () => ((await enforced()) === 'False' ? true : undefined),
    'a selector in the root is a limit',
  );
  const patch = { spec: { istioRootNamespace: 'mesh' } };
  await api.client.patch(ownKinds.ClusterSettings, { name: 'default' }, { type: 'merge', patch });
  await eventually(async () => ((await enforced()) === 'True' ? true : undefined), 'no longer the root');
});
