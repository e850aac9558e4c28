import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { ApiFeed } from '../../src/agent/api-feed.ts';
import { ClusterState } from '../../src/agent/cluster-state.ts';
import { ApiError } from '../../src/api/client/error.ts';
import type { Api } from '../../src/api/client/types.ts';
import { kinds, policyResources } from '../../src/api/kinds.ts';
import { eventually, silent, TestApi } from '../api/harness.ts';

const specs = {
  ClusterNetworkPolicy: {
    ...{ tier: 'Admin', priority: 1, subject: { namespaces: {} } },
    ingress: [{ action: 'Accept', from: [{ namespaces: {} }] }],
  },
  CiliumNetworkPolicy: { endpointSelector: {}, ingress: [{}] },
  CiliumClusterwideNetworkPolicy: { endpointSelector: {}, egress: [{}] },
  AuthorizationPolicy: { rules: [{}] },
  PeerAuthentication: { mtls: { mode: 'STRICT' } },
} as const;
const pathOf = ({ group, version, plural, namespaced }: (typeof policyResources)[number]) =>
  `/apis/${group}/${version}/${namespaced ? 'namespaces/default/' : ''}${plural}`;

function feedOf(api: Api): { feed: ApiFeed; state: ClusterState; names: () => string[] } {
  const state = new ClusterState({}, () => {});
  const feed = new ApiFeed(state, { api, logger: silent, onServices: () => {} });
  return { feed, state, names: () => state.view.policies.map(({ kind, name }) => `${kind} ${name}`).sort() };
}

test('policies of every kind come into the view, several of one object too, and go with it', async (t) => {
  const api = await TestApi.start(t);
  for (const resource of policyResources) {
    const { group, version, kind } = resource;
    const spec = Object.entries(specs).find(([name]) => name === kind)?.[1];
    assert.ok(spec !== undefined, `${kind} has no example here`);
    const body = { apiVersion: `${group}/${version}`, kind, metadata: { name: 'p' }, spec };
    const answer = await api.raw(pathOf(resource), { method: 'POST', body });
    assert.equal(answer.status, 201, answer.text);
  }
  const { feed, names } = feedOf(api.client);
  t.after(() => feed.close());
  await feed.start();
  assert.deepEqual(
    names(),
    Object.keys(specs)
      .map((kind) => `${kind} p`)
      .sort(),
  );
  assert.deepEqual(feed.broken, []);

  const cilium = policyResources.find(({ kind }) => kind === 'CiliumNetworkPolicy');
  assert.ok(cilium !== undefined);
  const at = { namespace: 'default', name: 'p' };
  const patch = { spec: null, specs: [specs.CiliumNetworkPolicy, specs.CiliumNetworkPolicy] };
  await api.client.patch(cilium, at, { type: 'merge', patch });
  await eventually(() => (names().length === 6 ? true : undefined), 'both specs');
  assert.deepEqual(
    names().filter((name) => name.startsWith('CiliumN')),
    ['CiliumNetworkPolicy p specs[0]', 'CiliumNetworkPolicy p specs[1]'],
  );
  await api.client.delete(cilium, at);
  await eventually(() => (names().length === 4 ? true : undefined), 'both gone');
});

test('policies are read again where what they leave to the cluster is another', async (t) => {
  const api = await TestApi.start(t);
  const resource = policyResources.find(({ kind }) => kind === 'AuthorizationPolicy');
  assert.ok(resource !== undefined);
  const metadata = { name: 'p' };
  const body = { apiVersion: 'security.istio.io/v1', kind: 'AuthorizationPolicy', metadata, spec: {} };
  assert.equal((await api.raw(pathOf(resource), { method: 'POST', body })).status, 201);
  const { feed, state } = feedOf(api.client);
  t.after(() => feed.close());
  await feed.start();
  const [before] = state.view.policies;
  feed.setPolicyContext({});
  assert.equal(state.view.policies[0], before, 'nothing is another');
  feed.setPolicyContext({ rootNamespace: 'default' });
  const namespaces = { selector: {} };
  assert.deepEqual(state.view.policies[0]?.subject, { kind: 'pods', namespaces, pods: {} }, 'all of the mesh');
});

test('policies about services follow their backends, and the API server', async (t) => {
  const api = await TestApi.start(t);
  const resource = policyResources.find(({ kind }) => kind === 'CiliumNetworkPolicy');
  assert.ok(resource !== undefined);
  const spec = {
    endpointSelector: {},
    egress: [{ toServices: [{ k8sService: { serviceName: 'db' } }] }, { toEntities: ['kube-apiserver'] }],
  };
  const body = { apiVersion: 'cilium.io/v2', kind: 'CiliumNetworkPolicy', metadata: { name: 'p' }, spec };
  assert.equal((await api.raw(pathOf(resource), { method: 'POST', body })).status, 201);
  const slice = (name: string, service: string, ...addresses: string[]) => ({
    ...({ apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice', addressType: 'IPv4' } as const),
    metadata: { namespace: 'default', name, labels: { 'kubernetes.io/service-name': service } },
    endpoints: addresses.map((address) => ({ addresses: [address], conditions: { ready: false } })),
    ports: [{ port: 5432 }],
  });
  await api.client.create(kinds.Service, {
    ...{ apiVersion: 'v1', kind: 'Service', metadata: { namespace: 'default', name: 'db' } },
    spec: { ports: [{ port: 5432 }] },
  });
  await api.client.create(kinds.EndpointSlice, slice('db-1', 'db', '198.51.100.7'));
  const { feed, state } = feedOf(api.client);
  t.after(() => feed.close());
  await feed.start();
  const peers = () =>
    state.view.policies.flatMap(({ rules }) =>
      rules.map(({ peers }) =>
        peers === 'any' ? peers : peers.map((peer) => (peer.kind === 'cidr' ? peer.cidr : peer.kind)),
      ),
    );
  // What is known when the first lists are in is what policies are read by, whichever list was first.
  assert.deepEqual(peers(), [['198.51.100.7/32'], ['some']]);
  const changed = async (expected: unknown) =>
    await eventually(() => (isDeepStrictEqual(peers(), expected) ? true : undefined), JSON.stringify(expected));
  await api.client.create(kinds.EndpointSlice, slice('db-2', 'db', '198.51.100.9'));
  await changed([['198.51.100.7/32', '198.51.100.9/32'], ['some']]);
  await api.client.create(kinds.EndpointSlice, slice('api', 'kubernetes', '192.0.2.6'));
  await changed([['198.51.100.7/32', '198.51.100.9/32'], ['192.0.2.6/32']]);
  await api.client.delete(kinds.Service, { namespace: 'default', name: 'db' });
  await changed([['192.0.2.6/32']]);
});

test('an API that knows none but Kubernetes’ own kind does: the agent goes on without the others', async (t) => {
  const api = await TestApi.start(t);
  const foreign = new Set(policyResources.map(({ plural }) => plural));
  // As a cluster answers in which nobody has defined those kinds.
  const client: Api = new Proxy(api.client, {
    get: (target, name) => {
      if (name === 'list')
        return async (...args: Parameters<Api['list']>) => {
          if (foreign.has(args[0].plural))
            throw new ApiError('NotFound', 'the server could not find the requested resource');
          return await target.list(...args);
        };
      const value: unknown = Reflect.get(target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  const metadata = { namespace: 'default', name: 'p' };
  await api.client.create(kinds.NetworkPolicy, {
    ...{ apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata },
    spec: { podSelector: {} },
  });
  const { feed, names } = feedOf(client);
  t.after(() => feed.close());
  await feed.start();
  assert.deepEqual(names(), ['NetworkPolicy p']);
  assert.deepEqual([feed.health.synced, feed.health.error], [true, undefined]);
});
