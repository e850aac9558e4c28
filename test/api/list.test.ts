import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isList, objectOr, stringOr } from '../../src/api/json.ts';
import { kinds } from '../../src/api/kinds.ts';
import { type Answer, podNamed, TestApi } from './harness.ts';

const path = '/api/v1/configmaps';

const configMap = (name: string, namespace = 'default', labels: Record<string, string> = {}) => ({
  apiVersion: 'v1' as const,
  kind: 'ConfigMap' as const,
  metadata: { name, namespace, labels },
});

function namesOf({ json }: Answer): string[] {
  const { items } = json;
  return (isList(items) ? items : []).map((item) => stringOr(objectOr(objectOr(item).metadata).name, ''));
}

test('pages of a list are one snapshot, whatever is written meanwhile', async (t) => {
  const api = await TestApi.start(t);
  let generation = 0;
  const operation = fc.record({
    action: fc.constantFrom('create', 'delete', 'update'),
    name: fc.integer({ min: 0, max: 12 }),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(fc.integer({ min: 0, max: 12 }), { maxLength: 13 }),
      fc.integer({ min: 1, max: 5 }),
      fc.array(operation, { maxLength: 12 }),
      async (initial, limit, operations) => {
        const prefix = `r${generation++}-`;
        const nameOf = (i: number) => `${prefix}${String(i).padStart(2, '0')}`;
        for (const i of initial) await api.client.create(kinds.ConfigMap, configMap(nameOf(i)));
        const whole = await api.raw(path);
        const seen: string[] = [];
        const versions = new Set<string>();
        const pending = [...operations];
        let next = '';
        do {
          const page = await api.raw(`${path}?limit=${limit}&continue=${next}`);
          assert.equal(page.status, 200, page.text);
          assert.ok(namesOf(page).length <= limit);
          seen.push(...namesOf(page));
          const metadata = objectOr(page.json.metadata);
          versions.add(String(metadata.resourceVersion));
          next = stringOr(metadata.continue, '');
          if (next !== '') assert.equal(Number(metadata.remainingItemCount), namesOf(whole).length - seen.length);
          for (const { action, name } of pending.splice(0, 3)) {
            const ref = { namespace: 'default', name: nameOf(name) };
            const write = {
              create: () => api.client.create(kinds.ConfigMap, configMap(nameOf(name))),
              delete: () => api.client.delete(kinds.ConfigMap, ref),
              update: () =>
                api.client.patch(kinds.ConfigMap, ref, {
                  type: 'merge',
                  patch: { data: { n: String(Math.random()) } },
                }),
            };
            await write[action]().catch(() => {});
          }
        } while (next !== '');
        assert.deepEqual(seen, namesOf(whole));
        assert.deepEqual([...versions], [objectOr(whole.json.metadata).resourceVersion]);
        for (const name of namesOf(await api.raw(path)).filter((found) => found.startsWith(prefix)))
          await api.client.delete(kinds.ConfigMap, { namespace: 'default', name });
      },
    ),
    { numRuns: 25 },
  );
});

test('a page token that outlives the history is Expired, and the client begins again by itself', async (t) => {
  const api = await TestApi.start(t, { historyEvents: 5 });
  for (let i = 0; i < 10; i++) await api.client.create(kinds.ConfigMap, configMap(`c${i}`));
  const first = await api.raw(`${path}?limit=4`);
  const token = String(objectOr(first.json.metadata).continue);
  for (let i = 0; i < 10; i++) await api.client.create(kinds.Pod, podNamed(`p${i}`));
  const late = await api.raw(`${path}?limit=4&continue=${token}`);
  assert.deepEqual([late.status, late.json.reason], [410, 'Expired']);
  assert.equal((await api.raw(`${path}?continue=garbage`)).status, 400);
  for (let i = 10; i < 30; i++) await api.client.create(kinds.ConfigMap, configMap(`c${i}`));
  const other = api.clientAs(api.adminPem);
  t.after(() => other.close());
  let done = false;
  const writing = (async () => {
    for (let i = 0; !done; i++) await other.create(kinds.Pod, podNamed(`busy${i}`));
  })();
  const list = await api.client.list(kinds.ConfigMap, { pageSize: 1 });
  done = true;
  await writing;
  assert.equal(list.entries.length, 30);
});

test('a list is of the version that is asked for', async (t) => {
  const api = await TestApi.start(t);
  const one = await api.client.create(kinds.ConfigMap, configMap('one'));
  await api.client.create(kinds.ConfigMap, configMap('two'));
  const version = one.metadata.resourceVersion;
  assert.deepEqual(namesOf(await api.raw(`${path}?resourceVersion=${version}&resourceVersionMatch=Exact`)), ['one']);
  assert.deepEqual(namesOf(await api.raw(`${path}?resourceVersion=${version}&resourceVersionMatch=NotOlderThan`)), [
    'one',
    'two',
  ]);
  assert.deepEqual(namesOf(await api.raw(`${path}?resourceVersion=0`)), ['one', 'two']);
  const future = await api.raw(`${path}?resourceVersion=99999`);
  assert.deepEqual([future.status, future.json.reason], [504, 'Timeout']);
  for (const query of [
    'resourceVersion=x',
    'resourceVersionMatch=Exact',
    'resourceVersion=0&resourceVersionMatch=Exact',
    'limit=x',
  ])
    assert.equal((await api.raw(`${path}?${query}`)).status, 400, query);
});

test('selectors select as in Kubernetes', async (t) => {
  const api = await TestApi.start(t);
  await api.client.create(kinds.ConfigMap, configMap('a', 'default', { app: 'web', tier: 'front' }));
  await api.client.create(kinds.ConfigMap, configMap('b', 'default', { app: 'db' }));
  await api.client.create(kinds.ConfigMap, configMap('c', 'kube-system', { app: 'web', 'x.io/y': '' }));
  const labels = async (selector: string) =>
    namesOf(await api.raw(`${path}?labelSelector=${encodeURIComponent(selector)}`));
  assert.deepEqual(await labels('app=web'), ['a', 'c']);
  assert.deepEqual(await labels('app==web,tier'), ['a']);
  assert.deepEqual(await labels('app!=web'), ['b']);
  assert.deepEqual(await labels('tier!=front'), ['b', 'c']);
  assert.deepEqual(await labels('app in (web, db),!tier'), ['b', 'c']);
  assert.deepEqual(await labels('tier notin (front)'), ['b', 'c']);
  assert.deepEqual(await labels('x.io/y='), ['c']);
  assert.deepEqual(await labels(''), ['a', 'b', 'c']);
  for (const broken of ['app in web', 'a b', '=x', 'app=a=b', 'app in (a', '!'])
    assert.equal((await api.raw(`${path}?labelSelector=${encodeURIComponent(broken)}`)).status, 400, broken);
  const fields = async (resource: string, selector: string) =>
    namesOf(await api.raw(`/api/v1/${resource}?fieldSelector=${encodeURIComponent(selector)}`));
  assert.deepEqual(await fields('configmaps', 'metadata.namespace=kube-system'), ['c']);
  assert.deepEqual(await fields('configmaps', 'metadata.name!=a,metadata.namespace=default'), ['b']);
  await api.client.create(kinds.Pod, podNamed('p1', { nodeName: 'n1' }));
  await api.client.create(kinds.Pod, podNamed('p2'));
  assert.deepEqual(await fields('pods', 'spec.nodeName=n1'), ['p1']);
  assert.deepEqual(await fields('pods', 'spec.nodeName='), ['p2']);
  assert.deepEqual(await fields('pods', 'status.phase!=Running,status.phase!=Failed'), ['p1', 'p2']);
  assert.equal((await api.raw(`/api/v1/pods?fieldSelector=${encodeURIComponent('spec.unknown=1')}`)).status, 400);
  assert.equal((await api.raw(`/api/v1/pods?fieldSelector=${encodeURIComponent('nothing')}`)).status, 400);
});

test('a collection is deleted by selector', async (t) => {
  const api = await TestApi.start(t);
  for (const name of ['a', 'b', 'c'])
    await api.client.create(kinds.ConfigMap, configMap(name, 'default', { keep: name === 'b' ? 'yes' : 'no' }));
  const answer = await api.raw('/api/v1/namespaces/default/configmaps?labelSelector=keep%3Dno', { method: 'DELETE' });
  assert.equal(answer.status, 200);
  assert.deepEqual(namesOf(await api.raw(path)), ['b']);
});
