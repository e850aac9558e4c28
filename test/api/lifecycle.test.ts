import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isApiError } from '../../src/api/client/error.ts';
import { type KubeObject, kinds, type Resource } from '../../src/api/kinds.ts';
import { eventually, podNamed, TestApi } from './harness.ts';

async function isGone<T extends KubeObject>(
  api: TestApi,
  resource: Resource<T>,
  name: string,
  namespace?: string,
): Promise<true | undefined> {
  try {
    await api.client.get(resource, { name, namespace });
    return undefined;
  } catch (error) {
    if (isApiError(error, 'NotFound')) return true;
    throw error;
  }
}

const gone = <T extends KubeObject>(api: TestApi, resource: Resource<T>, name: string, namespace?: string) =>
  eventually(() => isGone(api, resource, name, namespace), `${resource.kind} ${name} gone`);

const configMap = (name: string, metadata: object = {}, namespace = 'default') => ({
  apiVersion: 'v1' as const,
  kind: 'ConfigMap' as const,
  metadata: { name, namespace, ...metadata },
});

const at = (name: string) => ({ namespace: 'default', name });

test('every namespace has its label and its default service account, for good', async (t) => {
  const { client } = await TestApi.start(t);
  const forged = { 'kubernetes.io/metadata.name': 'kube-system', team: 'a' };
  const created = await client.create(kinds.Namespace, {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: 'shop', labels: forged },
  });
  assert.deepEqual(created.metadata.labels, { 'kubernetes.io/metadata.name': 'shop', team: 'a' });
  const relabelled = await client.patch(
    kinds.Namespace,
    { name: 'shop' },
    { type: 'merge', patch: { metadata: { labels: forged } } },
  );
  assert.equal(relabelled.metadata.labels?.['kubernetes.io/metadata.name'], 'shop');
  const account = await client.get(kinds.ServiceAccount, { namespace: 'shop', name: 'default' });
  await client.delete(kinds.ServiceAccount, { namespace: 'shop', name: 'default' });
  const again = await eventually(
    () => client.get(kinds.ServiceAccount, { namespace: 'shop', name: 'default' }).catch(() => undefined),
    'a new default account',
  );
  assert.notEqual(again.metadata.uid, account.metadata.uid);
  for (const name of ['default', 'kube-system'])
    await assert.rejects(client.delete(kinds.Namespace, { name }), { code: 'Forbidden' });
});

test('a pod on a node stays until its kubelet has stopped it; one without a node goes at once', async (t) => {
  const { client } = await TestApi.start(t);
  await client.create(kinds.Pod, podNamed('loose'));
  await client.delete(kinds.Pod, at('loose'));
  await assert.rejects(client.get(kinds.Pod, at('loose')), { code: 'NotFound' });
  await client.create(kinds.Pod, podNamed('placed', { nodeName: 'n1' }));
  await client.delete(kinds.Pod, at('placed'));
  const marked = await client.get(kinds.Pod, at('placed'));
  assert.equal(marked.metadata.deletionGracePeriodSeconds, 30);
  assert.ok(Date.parse(marked.metadata.deletionTimestamp ?? '') > Date.now() + 20_000);
  await client.delete(kinds.Pod, at('placed'), { gracePeriodSeconds: 60 });
  assert.equal((await client.get(kinds.Pod, at('placed'))).metadata.resourceVersion, marked.metadata.resourceVersion);
  await client.delete(kinds.Pod, at('placed'), { gracePeriodSeconds: 5 });
  assert.equal((await client.get(kinds.Pod, at('placed'))).metadata.deletionGracePeriodSeconds, 5);
  await client.replaceStatus(kinds.Pod, {
    ...marked,
    metadata: { ...marked.metadata, resourceVersion: '' },
    status: { phase: 'Running' },
  });
  await assert.rejects(client.delete(kinds.Pod, at('placed'), { gracePeriodSeconds: 0, uid: 'another' }), {
    code: 'Conflict',
  });
  await client.delete(kinds.Pod, at('placed'), { gracePeriodSeconds: 0, uid: marked.metadata.uid });
  await assert.rejects(client.get(kinds.Pod, at('placed')), { code: 'NotFound' });
});

test('finalizers hold an object, and no new ones come in the meantime', async (t) => {
  const { client } = await TestApi.start(t);
  await client.create(kinds.ConfigMap, configMap('held', { finalizers: ['example.com/one', 'example.com/two'] }));
  await client.delete(kinds.ConfigMap, at('held'));
  const held = await client.get(kinds.ConfigMap, at('held'));
  assert.notEqual(held.metadata.deletionTimestamp, undefined);
  const finalizers = (list: string[]) =>
    client.patch(kinds.ConfigMap, at('held'), { type: 'merge', patch: { metadata: { finalizers: list } } });
  await assert.rejects(finalizers(['example.com/one', 'example.com/three']), { code: 'Invalid' });
  await finalizers(['example.com/two']);
  await client.get(kinds.ConfigMap, at('held'));
  await finalizers([]);
  await assert.rejects(client.get(kinds.ConfigMap, at('held')), { code: 'NotFound' });
});

test('a namespace goes when it is empty, and takes nothing new until then', async (t) => {
  const api = await TestApi.start(t);
  const { client } = api;
  await client.create(kinds.Namespace, { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop' } });
  for (let i = 0; i < 30; i++) await client.create(kinds.ConfigMap, configMap(`cm${i}`, {}, 'shop'));
  await client.create(kinds.Pod, podNamed('busy', { namespace: 'shop', nodeName: 'n1' }));
  await client.delete(kinds.Namespace, { name: 'shop' });
  await gone(api, kinds.ConfigMap, 'cm29', 'shop');
  const terminating = await client.get(kinds.Namespace, { name: 'shop' });
  assert.equal(terminating.status?.phase, 'Terminating');
  await assert.rejects(client.create(kinds.ConfigMap, configMap('late', {}, 'shop')), { code: 'Forbidden' });
  await client.patch(kinds.Namespace, { name: 'shop' }, { type: 'merge', patch: { metadata: { labels: { a: 'b' } } } });
  assert.equal((await client.get(kinds.Namespace, { name: 'shop' })).metadata.labels?.a, 'b');
  assert.notEqual(
    (await client.get(kinds.Pod, { namespace: 'shop', name: 'busy' })).metadata.deletionTimestamp,
    undefined,
  );
  await client.delete(kinds.Pod, { namespace: 'shop', name: 'busy' }, { gracePeriodSeconds: 0 });
  await gone(api, kinds.Namespace, 'shop');
  for (const resource of [kinds.ConfigMap, kinds.ServiceAccount, kinds.Pod]) {
    const left = await client.list<KubeObject>(resource, { namespace: 'shop' });
    assert.deepEqual(left.entries, []);
  }
});

test('dependents follow their owners, go before them, or are let go, as asked', async (t) => {
  const api = await TestApi.start(t);
  const { client } = api;
  const family = async (name: string) => {
    const owner = await client.create(kinds.ConfigMap, configMap(name));
    const ownerReferences = [{ apiVersion: 'v1', kind: 'ConfigMap', name, uid: owner.metadata.uid }];
    await client.create(
      kinds.ConfigMap,
      configMap(`${name}-child`, { ownerReferences, finalizers: ['example.com/slow'] }),
    );
    return owner;
  };
  const release = (name: string) =>
    client.patch(kinds.ConfigMap, at(name), { type: 'merge', patch: { metadata: { finalizers: null } } });
  await family('back');
  await client.delete(kinds.ConfigMap, at('back'), { propagation: 'Background' });
  await assert.rejects(client.get(kinds.ConfigMap, at('back')), { code: 'NotFound' });
  await eventually(
    async () => (await client.get(kinds.ConfigMap, at('back-child'))).metadata.deletionTimestamp,
    'the child marked',
  );
  await release('back-child');
  await gone(api, kinds.ConfigMap, 'back-child', 'default');

  await family('fore');
  await client.delete(kinds.ConfigMap, at('fore'), { propagation: 'Foreground' });
  await eventually(
    async () => (await client.get(kinds.ConfigMap, at('fore-child'))).metadata.deletionTimestamp,
    'the child marked',
  );
  await client.get(kinds.ConfigMap, at('fore'));
  await release('fore-child');
  await gone(api, kinds.ConfigMap, 'fore', 'default');

  await family('orphan');
  await client.delete(kinds.ConfigMap, at('orphan'), { propagation: 'Orphan' });
  await gone(api, kinds.ConfigMap, 'orphan', 'default');
  const child = await client.get(kinds.ConfigMap, at('orphan-child'));
  assert.deepEqual([child.metadata.ownerReferences, child.metadata.deletionTimestamp], [undefined, undefined]);
});

test('an owner that never was, or is another namespace’s, is none; one of two is enough', async (t) => {
  const api = await TestApi.start(t);
  const { client } = api;
  const reference = (name: string, uid: string) => ({ apiVersion: 'v1', kind: 'ConfigMap', name, uid });
  const here = await client.create(kinds.ConfigMap, configMap('here'));
  const there = await client.create(kinds.ConfigMap, configMap('there', {}, 'kube-system'));
  await client.create(
    kinds.ConfigMap,
    configMap('both', { ownerReferences: [reference('none', 'no-such-uid'), reference('here', here.metadata.uid)] }),
  );
  await client.create(kinds.ConfigMap, configMap('stray', { ownerReferences: [reference('none', 'no-such-uid')] }));
  await client.create(
    kinds.ConfigMap,
    configMap('tied', { ownerReferences: [reference('there', there.metadata.uid)] }),
  );
  await gone(api, kinds.ConfigMap, 'stray', 'default');
  await gone(api, kinds.ConfigMap, 'tied', 'default');
  await client.get(kinds.ConfigMap, at('both'));
  await client.delete(kinds.ConfigMap, at('here'));
  await gone(api, kinds.ConfigMap, 'both', 'default');
});

test('what was going on goes on after a restart', async (t) => {
  const api = await TestApi.start(t);
  const { client } = api;
  await client.create(kinds.Namespace, { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop' } });
  await client.create(kinds.Pod, podNamed('busy', { namespace: 'shop', nodeName: 'n1' }));
  await client.delete(kinds.Namespace, { name: 'shop' });
  await api.restart();
  await client.get(kinds.Pod, { namespace: 'shop', name: 'busy' });
  await client.delete(kinds.Pod, { namespace: 'shop', name: 'busy' }, { gracePeriodSeconds: 0 });
  await gone(api, kinds.Namespace, 'shop');
});
