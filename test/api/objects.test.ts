import assert from 'node:assert/strict';
import { test } from 'node:test';
import { objectOr } from '../../src/api/json.ts';
import { kinds } from '../../src/api/kinds.ts';
import { causesOf, podNamed, TestApi } from './harness.ts';

const pods = '/api/v1/namespaces/default/pods';
const deployment = {
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name: 'web', namespace: 'default' },
  spec: {
    selector: { matchLabels: { app: 'web' } },
    template: { metadata: { labels: { app: 'web' } }, spec: { containers: [{ name: 'c', image: 'nginx:1' }] } },
  },
} as const;

test('a created object has what the server gives it, and is the one that is read', async (t) => {
  const { client } = await TestApi.start(t);
  const created = await client.create(kinds.Pod, podNamed('fresh'));
  assert.match(created.metadata.uid, /^[0-9a-f-]{36}$/);
  assert.match(created.metadata.creationTimestamp ?? '', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  assert.equal(created.metadata.generation, 1);
  assert.equal(created.status?.phase, 'Pending');
  assert.equal(created.spec.serviceAccountName, 'default');
  assert.equal(created.spec.restartPolicy, 'Always');
  assert.equal(created.spec.terminationGracePeriodSeconds, 30);
  assert.deepEqual(await client.get(kinds.Pod, { namespace: 'default', name: 'fresh' }), created);
});

test('what a client says about the server’s own fields is not taken', async (t) => {
  const api = await TestApi.start(t);
  const pod = podNamed('liar');
  const metadata = {
    ...pod.metadata,
    uid: 'mine',
    creationTimestamp: '2001-01-01T00:00:00Z',
    generation: 7,
    deletionTimestamp: '2001-01-01T00:00:00Z',
  };
  const status = { phase: 'Running', podIP: '10.244.0.9', podIPs: [{ ip: '10.244.0.9' }] };
  const answer = await api.raw(pods, { method: 'POST', body: { ...pod, metadata, status } });
  assert.equal(answer.status, 201);
  const created = await api.client.get(kinds.Pod, { namespace: 'default', name: 'liar' });
  assert.notEqual(created.metadata.uid, 'mine');
  assert.notEqual(created.metadata.creationTimestamp, '2001-01-01T00:00:00Z');
  assert.equal(created.metadata.generation, 1);
  assert.equal(created.metadata.deletionTimestamp, undefined);
  assert.deepEqual(created.status, { phase: 'Pending', qosClass: 'BestEffort' });
});

test('errors are Status objects in Kubernetes’ own words', async (t) => {
  const api = await TestApi.start(t);
  const missing = await api.raw(`${pods}/none`);
  assert.equal(missing.status, 404);
  assert.deepEqual(missing.json, {
    kind: 'Status',
    apiVersion: 'v1',
    metadata: {},
    status: 'Failure',
    message: 'pods "none" not found',
    reason: 'NotFound',
    details: { name: 'none', kind: 'pods' },
    code: 404,
  });
  await api.client.create(kinds.Pod, podNamed('one'));
  const twice = await api.raw(pods, { method: 'POST', body: podNamed('one') });
  assert.deepEqual(
    [twice.status, twice.json.reason, twice.json.message],
    [409, 'AlreadyExists', 'pods "one" already exists'],
  );
  const nowhere = await api.raw('/api/v1/namespaces/none/pods', {
    method: 'POST',
    body: podNamed('x', { namespace: 'none' }),
  });
  assert.deepEqual([nowhere.status, nowhere.json.message], [404, 'namespaces "none" not found']);
  const elsewhere = await api.raw(pods, { method: 'POST', body: podNamed('x', { namespace: 'kube-system' }) });
  assert.deepEqual([elsewhere.status, elsewhere.json.reason], [400, 'BadRequest']);
  for (const path of [
    '/nothing',
    '/api/v2/pods',
    '/apis/apps/v1/widgets',
    '/api/v1/namespaces/default/nodes',
    '/api/v1/pods/one',
    `${pods}/one/nothing`,
    '/api/v1/%zz',
  ])
    assert.ok([400, 404].includes((await api.raw(path)).status), path);
  assert.equal((await api.raw(pods, { method: 'PUT' })).status, 405);
  assert.equal((await api.raw(pods, { method: 'POST', body: '{"kind":' })).status, 400);
  assert.equal((await api.raw(pods, { method: 'POST', body: '[]' })).status, 400);
  assert.equal((await api.raw(pods, { method: 'POST', body: '{"__proto__":{"a":1},"metadata":{}}' })).status, 400);
  assert.equal((await api.raw(pods, { method: 'POST', body: `${'['.repeat(5000)}${']'.repeat(5000)}` })).status, 400);
  assert.equal((await api.raw(pods, { method: 'POST', body: `"${'x'.repeat(4 << 20)}"` })).status, 413);
  assert.equal((await api.raw(pods, { headers: { accept: 'application/vnd.kubernetes.protobuf' } })).status, 406);
});

test('a stale update is refused, an unchanged one writes nothing, a spec’s change counts', async (t) => {
  const { client } = await TestApi.start(t);
  const first = await client.create(kinds.Deployment, structuredClone(deployment) as never);
  const second = await client.replace(kinds.Deployment, { ...first, spec: { ...first.spec, replicas: 3 } });
  assert.equal(second.metadata.generation, 2);
  await assert.rejects(client.replace(kinds.Deployment, first), { code: 'Conflict', status: 409 });
  const same = await client.replace(kinds.Deployment, second);
  assert.equal(same.metadata.resourceVersion, second.metadata.resourceVersion);
  const labelled = await client.replace(kinds.Deployment, {
    ...second,
    metadata: { ...second.metadata, labels: { a: 'b' } },
  });
  assert.equal(labelled.metadata.generation, 2);
  assert.notEqual(labelled.metadata.resourceVersion, second.metadata.resourceVersion);
  await assert.rejects(
    client.replace(kinds.Deployment, { ...labelled, metadata: { ...labelled.metadata, uid: 'other' } }),
    { code: 'Conflict' },
  );
});

test('status and the rest are written apart, and a status write cannot reach labels', async (t) => {
  const { client } = await TestApi.start(t);
  const pod = await client.create(kinds.Pod, podNamed('apart', { labels: { app: 'a' } }));
  const forged = {
    ...pod,
    metadata: { ...pod.metadata, labels: { app: 'b' } },
    status: { phase: 'Running' as const, podIP: '10.0.0.1', podIPs: [{ ip: '10.0.0.1' }] },
  };
  const updated = await client.replaceStatus(kinds.Pod, forged);
  assert.deepEqual(updated.metadata.labels, { app: 'a' });
  assert.equal(updated.status?.podIP, '10.0.0.1');
  const whole = await client.replace(kinds.Pod, {
    ...updated,
    status: { phase: 'Failed' },
    metadata: { ...updated.metadata, labels: { app: 'c' } },
  });
  assert.equal(whole.status?.phase, 'Running');
  assert.deepEqual(whole.metadata.labels, { app: 'c' });
});

test('generated names are free ones, dry runs store nothing', async (t) => {
  const api = await TestApi.start(t);
  const names = new Set<string>();
  for (let i = 0; i < 20; i++) {
    const { metadata } = await api.client.create(kinds.Pod, {
      ...podNamed('x'),
      metadata: { generateName: 'web-', namespace: 'default' },
    });
    assert.match(metadata.name, /^web-[a-z0-9]{5}$/);
    names.add(metadata.name);
  }
  assert.equal(names.size, 20);
  await api.client.create(kinds.Pod, podNamed('dry'), { dryRun: true });
  await assert.rejects(api.client.get(kinds.Pod, { namespace: 'default', name: 'dry' }), { code: 'NotFound' });
  assert.equal((await api.raw(`${pods}?dryRun=Some`, { method: 'POST', body: podNamed('x') })).status, 400);
});

test('unknown fields are refused, dropped with a warning, or dropped, as asked', async (t) => {
  const api = await TestApi.start(t);
  const odd = (name: string) => ({
    ...podNamed(name),
    spec: { ...podNamed(name).spec, contaners: [], dnsConfig: { server: [] } },
  });
  const strict = await api.raw(`${pods}?fieldValidation=Strict`, { method: 'POST', body: odd('a') });
  assert.equal(strict.status, 400);
  assert.match(
    String(strict.json.message),
    /strict decoding error: unknown field "spec.contaners", unknown field "spec.dnsConfig.server"$/,
  );
  assert.deepEqual(causesOf(strict), ['spec.contaners: FieldValueInvalid', 'spec.dnsConfig.server: FieldValueInvalid']);
  const warned = await api.raw(pods, { method: 'POST', body: odd('b') });
  assert.equal(warned.status, 201);
  assert.match(String(warned.headers.warning), /299 - "unknown field \\"spec.contaners\\""/);
  assert.equal('contaners' in objectOr(warned.json.spec), false);
  const ignored = await api.raw(`${pods}?fieldValidation=Ignore`, { method: 'POST', body: odd('c') });
  assert.deepEqual([ignored.status, ignored.headers.warning], [201, undefined]);
});

test('nulls are absences, and a null in a list is none', async (t) => {
  const api = await TestApi.start(t);
  const pod = podNamed('nulls');
  const body = {
    ...pod,
    metadata: { ...pod.metadata, creationTimestamp: null, labels: null },
    spec: { ...pod.spec, volumes: null },
  };
  assert.equal((await api.raw(pods, { method: 'POST', body })).status, 201);
  const refused = await api.raw(pods, { method: 'POST', body: { ...podNamed('n2'), spec: { containers: [null] } } });
  assert.deepEqual([refused.status, causesOf(refused)], [422, ['spec.containers[0]: FieldValueTypeInvalid']]);
});

test('a pod’s identity and place cannot be changed, and its service account must be there', async (t) => {
  const { client } = await TestApi.start(t);
  const pod = await client.create(kinds.Pod, podNamed('fixed', { nodeName: 'n1' }));
  const changed = { ...pod, spec: { ...pod.spec, serviceAccountName: 'other', serviceAccount: 'other' } };
  await assert.rejects(client.replace(kinds.Pod, changed), { code: 'Invalid' });
  await assert.rejects(client.replace(kinds.Pod, { ...pod, spec: { ...pod.spec, nodeName: 'n2' } }), {
    code: 'Invalid',
  });
  const image = await client.patch(
    kinds.Pod,
    { namespace: 'default', name: 'fixed' },
    { type: 'strategic', patch: { spec: { containers: [{ name: 'c', image: 'new' }] } } },
  );
  assert.equal(image.spec.containers[0]?.image, 'new');
  const stranger = podNamed('stranger');
  await assert.rejects(
    client.create(kinds.Pod, { ...stranger, spec: { ...stranger.spec, serviceAccountName: 'nobody' } }),
    { code: 'Forbidden' },
  );
});

test('a scheduler binds a pod once; a Deployment is scaled by its /scale', async (t) => {
  const api = await TestApi.start(t);
  await api.client.create(kinds.Pod, podNamed('loose'));
  const binding = {
    apiVersion: 'v1',
    kind: 'Binding',
    metadata: { name: 'loose' },
    target: { kind: 'Node', name: 'n1' },
  };
  assert.equal((await api.raw(`${pods}/loose/binding`, { method: 'POST', body: binding })).status, 201);
  assert.equal((await api.raw(`${pods}/loose/binding`, { method: 'POST', body: binding })).status, 409);
  assert.equal((await api.client.get(kinds.Pod, { namespace: 'default', name: 'loose' })).spec.nodeName, 'n1');
  await api.client.create(kinds.Deployment, structuredClone(deployment) as never);
  const path = '/apis/apps/v1/namespaces/default/deployments/web/scale';
  assert.deepEqual(objectOr((await api.raw(path)).json.spec), { replicas: 1 });
  const scaled = await api.raw(path, {
    method: 'PATCH',
    body: { spec: { replicas: 4 } },
    headers: { 'content-type': 'application/merge-patch+json' },
  });
  assert.deepEqual(objectOr(scaled.json.spec), { replicas: 4 });
  assert.equal((await api.client.get(kinds.Deployment, { namespace: 'default', name: 'web' })).spec.replicas, 4);
});
