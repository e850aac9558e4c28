import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Agent, request } from 'node:https';
import { test } from 'node:test';
import { isApiError } from '../../src/api/client/error.ts';
import { kinds } from '../../src/api/kinds.ts';
import { eventually, podNamed, type RawRequest, TestApi } from './harness.ts';

const nodes = [
  { name: 'n1', cidrs: ['10.244.1.0/24', 'fd00:10:244:1::/64'], address: '192.0.2.1' },
  { name: 'n2', cidrs: ['10.244.2.0/24'], address: '192.0.2.2' },
];

async function withNodes(api: TestApi): Promise<void> {
  for (const { name, cidrs, address } of nodes) {
    await api.client.create(kinds.Node, {
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name },
      spec: { podCIDRs: cidrs },
      status: { addresses: [{ type: 'InternalIP', address }] },
    });
    await api.client.create(kinds.Pod, podNamed(`on-${name}`, { nodeName: name, labels: { app: 'a' } }));
  }
}

const merge = { 'content-type': 'application/merge-patch+json' };

test('who has no certificate, or not a good one, gets nothing but health', async (t) => {
  const api = await TestApi.start(t);
  const foreign = await TestApi.start(t);
  const admin = [{ CN: ['admin'] }, { O: ['system:masters'] }];
  const svid = await api.pki.issue(admin, [{ type: 'url', value: 'spiffe://cluster.local/ns/default/sa/default' }]);
  const expired = await api.pki.issue(admin, [], -1000);
  const nameless = await api.pki.issue([{ O: ['system:masters'] }]);
  for (const as of [null, foreign.adminPem, svid, expired, nameless]) {
    for (const path of ['/api/v1/pods', '/version', '/openapi/v2', '/apis']) {
      const answer = await api.raw(path, { as });
      assert.deepEqual([answer.status, answer.json.reason], [401, 'Unauthorized'], path);
    }
    for (const path of ['/healthz', '/readyz', '/livez', '/readyz/ping'])
      assert.equal((await api.raw(path, { as })).text, 'ok');
  }
});

test('a connection does not outlive the certificate that opened it', async (t) => {
  const api = await TestApi.start(t);
  const brief = await api.pki.issue([{ CN: ['admin'] }, { O: ['system:masters'] }], [], 2000);
  const client = api.clientAs(brief);
  t.after(() => client.close());
  await client.list(kinds.Pod);
  const refusal = await eventually(
    () =>
      client.list(kinds.Pod).then(
        () => undefined,
        (error: unknown) => error,
      ),
    'refused',
  );
  assert.ok(isApiError(refusal, 'Unauthorized'));
  assert.match(refusal.message, /the client certificate has expired/);
});

test('a user of no group may discover, and read no object', async (t) => {
  const api = await TestApi.start(t);
  const as = await api.pki.issue([{ CN: ['eve'] }, { O: ['people'] }]);
  assert.equal((await api.raw('/apis', { as })).status, 200);
  const answer = await api.raw('/api/v1/namespaces/default/pods', { as });
  assert.equal(answer.status, 403);
  assert.equal(
    answer.json.message,
    'pods is forbidden: User "eve" cannot list resource "pods" in API group "" in the namespace "default"',
  );
  const pretender = await api.pki.issue([{ CN: ['system:node:n1'] }]);
  assert.equal((await api.raw('/api/v1/pods', { as: pretender })).status, 403);
});

test('a node reads what networking needs, and no secrets but those that policies may name', async (t) => {
  const api = await TestApi.start(t);
  const as = await api.pki.node('n1');
  const named = '/api/v1/namespaces/myelin-secrets/secrets';
  for (const path of [named, `${named}?fieldSelector=metadata.name%3Da`])
    assert.equal((await api.raw(path, { as })).status, 200, path);
  assert.equal((await api.raw(`${named}/a`, { as })).status, 404);
  const body = { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'a' } };
  assert.equal((await api.raw(named, { as, method: 'POST', body })).status, 403);
  assert.equal((await api.raw(`${named}/a`, { as, method: 'DELETE' })).status, 403);
  for (const path of [
    '/api/v1/pods',
    '/api/v1/nodes',
    '/api/v1/services',
    '/api/v1/namespaces',
    '/apis/networking.k8s.io/v1/networkpolicies',
    '/apis/discovery.k8s.io/v1/endpointslices',
  ])
    assert.equal((await api.raw(path, { as })).status, 200, path);
  for (const path of ['/api/v1/secrets', '/api/v1/configmaps', '/api/v1/namespaces/default/secrets/x'])
    assert.equal((await api.raw(path, { as })).status, 403, path);
});

test('a reader reads what a node does, and writes nothing', async (t) => {
  const api = await TestApi.start(t);
  await withNodes(api);
  const reader = await api.pki.issue([{ CN: ['kube-dns'] }, { O: ['myelin:readers'] }]);
  // A node's name without a node's group makes no node.
  const pretender = await api.pki.issue([{ CN: ['system:node:n1'] }, { O: ['myelin:readers'] }]);
  for (const as of [reader, pretender]) {
    for (const path of ['/api/v1/services', '/api/v1/pods', '/apis/discovery.k8s.io/v1/endpointslices'])
      assert.equal((await api.raw(path, { as })).status, 200, path);
    for (const path of [
      '/api/v1/secrets',
      '/api/v1/configmaps',
      '/api/v1/namespaces/default/secrets/a',
      '/api/v1/namespaces/myelin-secrets/secrets',
    ])
      assert.equal((await api.raw(path, { as })).status, 403, path);
    const writes: [string, RawRequest][] = [
      ['/api/v1/nodes/n1/status', { method: 'PATCH', headers: merge, body: {} }],
      ['/api/v1/namespaces/default/pods/on-n1', { method: 'DELETE' }],
      ['/api/v1/namespaces/default/pods/on-n1/status', { method: 'PATCH', headers: merge, body: {} }],
      ['/api/v1/namespaces/default/events', { method: 'POST', body: { metadata: { name: 'e' } } }],
    ];
    for (const [path, call] of writes) assert.equal((await api.raw(path, { ...call, as })).status, 403, path);
  }
});

test('a node writes its own status, pods’ status, lease and events, and nothing else', async (t) => {
  const api = await TestApi.start(t);
  await withNodes(api);
  const as = await api.pki.node('n1');
  const expect = async (status: number, path: string, options: RawRequest) => {
    const answer = await api.raw(path, { ...options, as });
    assert.equal(answer.status, status, `${options.method ?? 'GET'} ${path}: ${answer.text}`);
  };
  const patch = (body: unknown): RawRequest => ({ method: 'PATCH', body, headers: merge });
  const ready = { status: { conditions: [{ type: 'Ready', status: 'True' }] } };
  await expect(200, '/api/v1/nodes/n1/status', patch(ready));
  await expect(403, '/api/v1/nodes/n2/status', patch(ready));
  await expect(403, '/api/v1/nodes/n1', patch({ spec: { podCIDRs: ['10.0.0.0/8'] } }));
  const pods = '/api/v1/namespaces/default/pods';
  const addressed = (ip: string) => patch({ status: { podIP: ip, podIPs: [{ ip }] } });
  await expect(200, `${pods}/on-n1/status`, addressed('10.244.1.7'));
  await expect(403, `${pods}/on-n2/status`, addressed('10.244.2.7'));
  await expect(403, `${pods}/on-n1/status`, addressed('10.244.2.7'));
  await expect(403, `${pods}/on-n1/status`, addressed('192.0.2.1'));
  await expect(
    403,
    `${pods}/on-n1/status`,
    patch({ status: { podIP: '10.244.1.7', podIPs: [{ ip: '10.244.1.7' }, { ip: 'fd00:10:244:2::7' }] } }),
  );
  await expect(
    200,
    `${pods}/on-n1/status`,
    patch({ status: { podIP: '10.244.1.7', podIPs: [{ ip: '10.244.1.7' }, { ip: 'fd00:10:244:1::7' }] } }),
  );
  await expect(403, `${pods}/on-n1`, patch({ metadata: { labels: { app: 'admin' } } }));
  await expect(403, pods, { method: 'POST', body: podNamed('more', { nodeName: 'n1' }) });
  await expect(403, '/api/v1/namespaces', {
    method: 'POST',
    body: { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'x' } },
  });
  const lease = (name: string) => ({
    method: 'POST',
    body: { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name }, spec: {} },
  });
  const leases = '/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases';
  await expect(201, leases, lease('n1'));
  await expect(403, leases, lease('n2'));
  await expect(403, '/apis/coordination.k8s.io/v1/namespaces/kube-system/leases', lease('n1'));
  await expect(200, `${leases}/n1`, patch({ spec: { holderIdentity: 'n1' } }));
  const event = {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: { name: 'e1' },
    involvedObject: { kind: 'Pod', namespace: 'default', name: 'on-n1' },
  };
  await expect(201, '/api/v1/namespaces/default/events', { method: 'POST', body: event });
  await expect(403, `${pods}/on-n2?gracePeriodSeconds=0`, { method: 'DELETE' });
  await expect(403, pods, { method: 'DELETE' });
  await expect(200, `${pods}/on-n1?gracePeriodSeconds=0`, { method: 'DELETE' });
  await assert.rejects(api.client.get(kinds.Pod, { namespace: 'default', name: 'on-n1' }), { code: 'NotFound' });
  await api.client.get(kinds.Pod, { namespace: 'default', name: 'on-n2' });
});

test('a resumed TLS session is still the same caller', async (t) => {
  const api = await TestApi.start(t);
  const agent = new Agent({ keepAlive: false, maxCachedSessions: 10 });
  t.after(() => agent.destroy());
  const reused: boolean[] = [];
  for (let i = 0; i < 3; i++) {
    const outgoing = request(new URL('/api/v1/namespaces/default/pods', api.server.url), {
      agent,
      ca: api.pki.ca,
      ...api.adminPem,
    });
    outgoing.on('socket', (socket) =>
      socket.on('secureConnect', () =>
        reused.push(
          'isSessionReused' in socket && typeof socket.isSessionReused === 'function'
            ? socket.isSessionReused()
            : false,
        ),
      ),
    );
    outgoing.end();
    const [response] = await once(outgoing, 'response');
    response.resume();
    await once(response, 'end');
    assert.equal(response.statusCode, 200, `connection ${i}`);
  }
  assert.deepEqual(reused, [false, true, true]);
});
