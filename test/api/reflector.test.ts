import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:https';
import { type TestContext, test } from 'node:test';
import { z } from 'zod';
import { ApiClient } from '../../src/api/client/client.ts';
import { Reflector } from '../../src/api/client/reflector.ts';
import type { ReflectorOptions } from '../../src/api/client/types.ts';
import { defineResource, type KubeObject, kindSchema, kinds } from '../../src/api/kinds.ts';
import { eventually, podNamed, silent, TestApi } from './harness.ts';

const at = (name: string) => ({ namespace: 'default', name });

function reflect<T extends KubeObject>(t: TestContext, api: TestApi, options: ReflectorOptions<T>) {
  const reflector = new Reflector(options, { api: api.client, logger: silent });
  const log: string[] = [];
  reflector.onChange(({ kind, entry }) => log.push(`${kind} ${entry.key}`));
  t.after(() => reflector.close());
  return { reflector: reflector.start(), log };
}

test('a reflector has what the API has, tells each change once, and finds by index', async (t) => {
  const api = await TestApi.start(t);
  await api.client.create(kinds.Pod, podNamed('a', { nodeName: 'n1' }));
  const patch = { apiVersion: 'v1', kind: 'Pod', metadata: { labels: { x: 'y' } } };
  await api.client.patch(kinds.Pod, at('a'), { type: 'apply', patch }, { fieldManager: 'test' });
  const byNode = (entry: { object?: { spec: { nodeName?: string | undefined } } | undefined }) => [
    entry.object?.spec.nodeName ?? '',
  ];
  const { reflector, log } = reflect(t, api, { resource: kinds.Pod, indexes: { node: byNode } });
  await reflector.synced;
  assert.deepEqual(log, ['add default/a']);
  await api.client.create(kinds.Pod, podNamed('b', { nodeName: 'n2' }));
  await api.client.patch(kinds.Pod, at('b'), { type: 'merge', patch: { metadata: { labels: { x: 'y' } } } });
  await api.client.delete(kinds.Pod, at('b'), { gracePeriodSeconds: 0 });
  await eventually(() => (log.length === 4 ? true : undefined), 'four changes');
  assert.deepEqual(log, ['add default/a', 'add default/b', 'update default/b', 'delete default/b']);
  assert.deepEqual(
    reflector.byIndex('node', 'n1').map(({ key }) => key),
    ['default/a'],
  );
  assert.deepEqual(reflector.byIndex('node', 'n2'), []);
  assert.throws(() => reflector.byIndex('other', ''), { code: 'BadRequest' });
  assert.equal(reflector.objects()[0]?.metadata.namespace, 'default');
  assert.equal(reflector.get('default/a')?.issues.length, 0);
  // Who writes may want them; a copy that is kept is better without.
  assert.notEqual((await api.client.get(kinds.Pod, at('a'))).metadata.managedFields, undefined);
  for (const { raw, object } of reflector.entries())
    assert.deepEqual([raw.metadata.managedFields, object?.metadata.managedFields], [undefined, undefined]);
});

test('while the API is away the copy stays; when it is back the watch goes on without a list', async (t) => {
  const api = await TestApi.start(t);
  await api.client.create(kinds.Pod, podNamed('a'));
  const { reflector, log } = reflect(t, api, { resource: kinds.Pod });
  await reflector.synced;
  await api.restart(async () => {
    await eventually(() => reflector.health.error, 'the loss noticed');
    assert.deepEqual([reflector.size, reflector.health.synced], [1, true]);
  });
  // Nothing has changed, so nothing is told; that the server is back is known all the same.
  await eventually(() => (reflector.health.error === undefined ? true : undefined), 'found again', 20_000);
  await eventually(() => api.client.create(kinds.Pod, podNamed('b')).catch(() => undefined), 'a pod made');
  await eventually(() => reflector.get('default/b'), 'b seen', 20_000);
  assert.deepEqual(log, ['add default/a', 'add default/b']);
  assert.deepEqual([reflector.health.relists, reflector.health.error], [0, undefined]);
});

test('where history has moved on, it lists again and tells the difference; a name that came back is another object', async (t) => {
  const api = await TestApi.start(t, { historyEvents: 4 });
  for (const name of ['stays', 'changes', 'goes', 'reborn']) await api.client.create(kinds.Pod, podNamed(name));
  const { reflector, log } = reflect(t, api, { resource: kinds.Pod });
  await reflector.synced;
  const before = reflector.get('default/reborn')?.raw.metadata.uid;
  log.length = 0;
  const other = api.clientAs(api.adminPem);
  t.after(() => other.close());
  // All of this happens in the turn between two watches: the reflector’s client is cut off meanwhile.
  api.client.useEndpoint({ ...api.endpointAs(api.adminPem), url: 'https://127.0.0.1:1' });
  await api.restart();
  await eventually(() => reflector.health.error, 'the loss noticed');
  await other.patch(kinds.Pod, at('changes'), { type: 'merge', patch: { metadata: { labels: { a: 'b' } } } });
  await other.delete(kinds.Pod, at('goes'));
  await other.delete(kinds.Pod, at('reborn'));
  await other.create(kinds.Pod, podNamed('reborn'));
  for (let i = 0; i < 5; i++)
    await other.patch(kinds.Pod, at('changes'), { type: 'merge', patch: { metadata: { labels: { a: String(i) } } } });
  api.client.useEndpoint(api.endpointAs(api.adminPem));
  await eventually(
    () => (reflector.health.relists > 0 && reflector.health.error === undefined ? true : undefined),
    'listed again',
    20_000,
  );
  assert.deepEqual(log.toSorted(), [
    'add default/reborn',
    'delete default/goes',
    'delete default/reborn',
    'update default/changes',
  ]);
  assert.ok(log.indexOf('delete default/reborn') < log.indexOf('add default/reborn'));
  assert.notEqual(reflector.get('default/reborn')?.raw.metadata.uid, before);
});

test('a server whose data was made anew is listed again', async (t) => {
  const api = await TestApi.start(t, { file: ':memory:' });
  for (let i = 0; i < 10; i++) await api.client.create(kinds.Pod, podNamed(`old${i}`));
  const { reflector } = reflect(t, api, { resource: kinds.Pod });
  await reflector.synced;
  await api.restart();
  await eventually(() => api.client.create(kinds.Pod, podNamed('new')).catch(() => undefined), 'a pod made');
  await eventually(
    () => (reflector.size === 1 && reflector.get('default/new') ? true : undefined),
    'the new state',
    20_000,
  );
});

test('an object that a newer server gives out does not break the stream: it comes raw, with what is not understood', async (t) => {
  const api = await TestApi.start(t);
  const names = { plural: 'gates', kind: 'Gate' };
  const schema = (modes: string[]) => ({
    type: 'object',
    properties: {
      spec: { type: 'object', properties: { mode: { type: 'string', enum: modes }, extra: { type: 'string' } } },
    },
  });
  await api.client.create(kinds.CustomResourceDefinition, {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: 'gates.example.com' },
    spec: {
      group: 'example.com',
      scope: 'Namespaced',
      names,
      versions: [
        { name: 'v1', served: true, storage: true, schema: { openAPIV3Schema: schema(['open', 'shut', 'ajar']) } },
      ],
    },
  });
  const known = kindSchema('example.com/v1', 'Gate', { spec: z.object({ mode: z.enum(['open', 'shut']) }) });
  const gates = defineResource('example.com/v1', 'Gate', 'gates', known, {});
  const post = (name: string, spec: object) =>
    api.raw('/apis/example.com/v1/namespaces/default/gates', {
      method: 'POST',
      body: { apiVersion: 'example.com/v1', kind: 'Gate', metadata: { name }, spec },
    });
  await post('first', { mode: 'ajar' });
  const { reflector, log } = reflect(t, api, { resource: gates });
  await reflector.synced;
  await post('second', { mode: 'open', extra: 'x' });
  await post('third', { mode: 'ajar' });
  await post('fourth', { mode: 'shut' });
  await eventually(() => reflector.get('default/fourth'), 'the last');
  assert.deepEqual(log, ['add default/first', 'add default/second', 'add default/third', 'add default/fourth']);
  const third = reflector.get('default/third');
  assert.equal(third?.object, undefined);
  assert.deepEqual(
    third?.issues.map(({ field, reason }) => `${field} ${reason}`),
    ['spec.mode FieldValueNotSupported'],
  );
  assert.deepEqual(third !== undefined && 'spec' in third.raw && third.raw.spec, { mode: 'ajar' });
  const second = reflector.get('default/second');
  assert.equal(second?.object?.spec.mode, 'open');
  assert.deepEqual(
    second?.issues.map(({ field }) => field),
    ['spec.extra'],
  );
  assert.deepEqual(
    reflector.objects().map(({ metadata }) => metadata.name),
    ['second', 'fourth'],
  );
  await assert.rejects(api.client.get(gates, at('third')), { code: 'Malformed' });
});

test('a listener that throws takes nothing from the others', async (t) => {
  const api = await TestApi.start(t);
  const reflector = new Reflector({ resource: kinds.Pod }, { api: api.client, logger: silent });
  t.after(() => reflector.close());
  const seen: string[] = [];
  reflector.onChange(() => {
    throw new Error('listener');
  });
  const stop = reflector.onChange(({ entry }) => seen.push(entry.key));
  reflector.start();
  await reflector.synced;
  await api.client.create(kinds.Pod, podNamed('a'));
  await eventually(() => (seen.length === 1 ? true : undefined), 'the change');
  stop();
  await api.client.create(kinds.Pod, podNamed('b'));
  await eventually(() => reflector.get('default/b'), 'b');
  assert.deepEqual(seen, ['default/a']);
});

test('a connection on which nothing comes is given up; one that is refused says where', async (t) => {
  const api = await TestApi.start(t);
  const mute = createServer({ ...(await api.pki.server()) }, (_request, response) =>
    response.writeHead(200).flushHeaders(),
  );
  mute.listen(0, '127.0.0.1');
  await once(mute, 'listening');
  t.after(() => mute.close());
  t.after(() => mute.closeAllConnections());
  const address = mute.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const client = new ApiClient({ ...api.endpointAs(api.adminPem), url: `https://127.0.0.1:${port}` });
  t.after(() => client.close());
  const first = async (events: AsyncIterable<unknown>) => {
    for await (const event of events) return event;
    return undefined;
  };
  await assert.rejects(first(client.watch(kinds.Pod, { idleTimeoutMs: 100 })), { code: 'Unreachable' });
  const nobody = new ApiClient({ ...api.endpointAs(api.adminPem), url: 'https://127.0.0.1:1' });
  await assert.rejects(
    nobody.list(kinds.Pod),
    /GET \/api\/v1\/pods: the API server at https:\/\/127.0.0.1:1 cannot be reached: .*ECONNREFUSED/,
  );
  const stranger = await TestApi.start(t);
  const doubting = new ApiClient({ ...api.endpointAs(api.adminPem), ca: stranger.pki.ca });
  await assert.rejects(doubting.list(kinds.Pod), { code: 'Unreachable' });
  const stop = new AbortController();
  const watching = first(api.client.watch(kinds.Pod, { signal: stop.signal }));
  stop.abort();
  await assert.rejects(watching, { code: 'Aborted' });
});

test('of a kind that the API need not know there is nothing until it is defined, and then at once what there is', async (t) => {
  const api = await TestApi.start(t);
  const schema = kindSchema('example.com/v1', 'Gadget', { spec: z.object({}).optional() });
  const resource = defineResource('example.com/v1', 'Gadget', 'gadgets', schema, {});
  const { reflector, log } = reflect(t, api, { resource, optional: true, absenceMs: 3_600_000 });
  await reflector.synced;
  assert.deepEqual([reflector.size, reflector.health.error], [0, undefined]);
  await api.client.create(kinds.CustomResourceDefinition, {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: 'gadgets.example.com' },
    spec: {
      group: 'example.com',
      scope: 'Namespaced',
      names: { plural: 'gadgets', kind: 'Gadget' },
      versions: [
        {
          name: 'v1',
          served: true,
          storage: true,
          schema: { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } },
        },
      ],
    },
  });
  const metadata = { namespace: 'default', name: 'g' };
  await api.client.create(resource, { apiVersion: 'example.com/v1', kind: 'Gadget', metadata });
  await eventually(() => reflector.get('default/g'), 'the gadget seen', 30_000);
  assert.deepEqual(log, ['add default/g']);
});
