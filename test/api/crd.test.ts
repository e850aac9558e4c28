import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isList, objectOr } from '../../src/api/json.ts';
import { kinds } from '../../src/api/kinds.ts';
import { causesOf, eventually, TestApi } from './harness.ts';

const schema = {
  type: 'object',
  required: ['spec'],
  properties: {
    spec: {
      type: 'object',
      required: ['size', 'mode'],
      properties: {
        size: { type: 'integer', minimum: 1, maximum: 10 },
        mode: { type: 'string', enum: ['fast', 'slow'], default: 'fast' },
        name: { type: 'string', pattern: '^[a-z]+$', maxLength: 5 },
        port: { 'x-kubernetes-int-or-string': true },
        tags: { type: 'array', items: { type: 'string' }, 'x-kubernetes-list-type': 'set', maxItems: 2 },
        parts: {
          type: 'array',
          'x-kubernetes-list-type': 'map',
          'x-kubernetes-list-map-keys': ['id'],
          items: {
            type: 'object',
            required: ['id'],
            properties: { id: { type: 'integer' }, note: { type: 'string' } },
          },
        },
        anything: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true },
        labels: { type: 'object', additionalProperties: { type: 'string' } },
        maybe: { type: 'string', nullable: true },
        either: {
          type: 'object',
          oneOf: [{ required: ['a'] }, { required: ['b'] }],
          properties: { a: { type: 'integer' }, b: { type: 'integer' } },
        },
        address: { type: 'string', format: 'ipv4' },
      },
    },
    status: { type: 'object', properties: { ready: { type: 'boolean' } } },
  },
};

function definition(version: object = {}) {
  return {
    apiVersion: 'apiextensions.k8s.io/v1' as const,
    kind: 'CustomResourceDefinition' as const,
    metadata: { name: 'widgets.example.com' },
    spec: {
      group: 'example.com',
      scope: 'Namespaced' as const,
      names: { plural: 'widgets', kind: 'Widget' },
      versions: [
        {
          name: 'v1',
          served: true,
          storage: true,
          subresources: { status: {} },
          schema: { openAPIV3Schema: schema },
          ...version,
        },
        { name: 'v1beta1', served: true, storage: false, schema: { openAPIV3Schema: schema } },
      ],
    },
  };
}

const widgets = '/apis/example.com/v1/namespaces/default/widgets';
const widget = (spec: unknown, name = 'w') => ({
  apiVersion: 'example.com/v1',
  kind: 'Widget',
  metadata: { name },
  spec,
});

test('custom resources are checked, defaulted and pruned by their schema', async (t) => {
  const api = await TestApi.start(t);
  assert.equal((await api.raw(widgets)).status, 404);
  const created = await api.client.create(kinds.CustomResourceDefinition, definition());
  assert.deepEqual(
    created.status?.conditions?.map(({ type, status }) => `${type}=${status}`),
    ['NamesAccepted=True', 'Established=True'],
  );
  const cases: readonly (readonly [unknown, readonly string[]])[] = [
    [{}, ['spec.size: FieldValueRequired']],
    [{ size: 0 }, ['spec.size: FieldValueInvalid']],
    [{ size: 11 }, ['spec.size: FieldValueInvalid']],
    [{ size: 'one' }, ['spec.size: FieldValueTypeInvalid']],
    [{ size: 1, mode: 'warp' }, ['spec.mode: FieldValueNotSupported']],
    [{ size: 1, name: 'A' }, ['spec.name: FieldValueInvalid']],
    [{ size: 1, name: 'abcdef' }, ['spec.name: FieldValueTooLong']],
    [{ size: 1, port: [] }, ['spec.port: FieldValueTypeInvalid']],
    [{ size: 1, tags: ['a', 'a'] }, ['spec.tags[1]: FieldValueDuplicate']],
    [{ size: 1, tags: ['a', 'b', 'c'] }, ['spec.tags: FieldValueTooMany']],
    [{ size: 1, parts: [{ id: 1 }, { id: 1 }] }, ['spec.parts[1]: FieldValueDuplicate']],
    [{ size: 1, parts: [{}] }, ['spec.parts[0].id: FieldValueRequired']],
    [{ size: 1, labels: { a: 1 } }, ['spec.labels.a: FieldValueTypeInvalid']],
    [{ size: 1, either: { a: 1, b: 2 } }, ['spec.either: FieldValueInvalid']],
    [{ size: 1, address: '::1' }, ['spec.address: FieldValueInvalid']],
    [{ size: null }, ['spec.size: FieldValueTypeInvalid']],
    [undefined, ['spec: FieldValueRequired']],
  ];
  for (const [spec, causes] of cases) {
    const answer = await api.raw(widgets, { method: 'POST', body: widget(spec) });
    assert.deepEqual([answer.status, causesOf(answer)], [422, causes], JSON.stringify(spec));
  }
  const full = { size: 1, port: 'http', maybe: null, anything: { x: { y: 1 } }, either: { a: 1 }, odd: 1 };
  const stored = await api.raw(widgets, { method: 'POST', body: { ...widget(full), status: { ready: true } } });
  assert.deepEqual(objectOr(stored.json.spec), {
    size: 1,
    port: 'http',
    maybe: null,
    anything: { x: { y: 1 } },
    either: { a: 1 },
    mode: 'fast',
  });
  assert.equal(stored.json.status, undefined);
  assert.match(String(stored.headers.warning), /unknown field \\"spec.odd\\"/);
  assert.equal(
    (await api.raw(`${widgets}?fieldValidation=Strict`, { method: 'POST', body: widget(full, 'v') })).status,
    400,
  );
});

test('versions are views of the same object, the status has its own door', async (t) => {
  const api = await TestApi.start(t);
  await api.client.create(kinds.CustomResourceDefinition, definition());
  const older = widgets.replace('v1', 'v1beta1');
  assert.equal(
    (await api.raw(older, { method: 'POST', body: { ...widget({ size: 1 }), apiVersion: 'example.com/v1beta1' } })).json
      .apiVersion,
    'example.com/v1beta1',
  );
  assert.equal((await api.raw(`${widgets}/w`)).json.apiVersion, 'example.com/v1');
  const list = (await api.raw(older)).json.items;
  assert.deepEqual(isList(list) && list.map((item) => objectOr(item).apiVersion), ['example.com/v1beta1']);
  const merge = { 'content-type': 'application/merge-patch+json' };
  const status = await api.raw(`${widgets}/w/status`, {
    method: 'PATCH',
    headers: merge,
    body: { status: { ready: true }, spec: { size: 9 } },
  });
  assert.deepEqual([objectOr(status.json.status).ready, objectOr(status.json.spec).size], [true, 1]);
  const spec = await api.raw(`${widgets}/w`, {
    method: 'PATCH',
    headers: merge,
    body: { status: { ready: false }, spec: { size: 9 } },
  });
  assert.deepEqual([objectOr(spec.json.status).ready, objectOr(spec.json.spec).size], [true, 9]);
  const strategic = { 'content-type': 'application/strategic-merge-patch+json' };
  assert.equal((await api.raw(`${widgets}/w`, { method: 'PATCH', headers: strategic, body: {} })).status, 415);
});

test('a definition goes with its resources, and is there after a restart', async (t) => {
  const api = await TestApi.start(t);
  await api.client.create(kinds.CustomResourceDefinition, definition());
  await api.raw(widgets, {
    method: 'POST',
    body: { ...widget({ size: 1 }), metadata: { name: 'w', finalizers: ['example.com/hold'] } },
  });
  await api.restart();
  assert.equal((await api.raw(`${widgets}/w`)).status, 200);
  await api.client.delete(kinds.CustomResourceDefinition, { name: 'widgets.example.com' });
  await eventually(
    async () => objectOr((await api.raw(`${widgets}/w`)).json.metadata).deletionTimestamp,
    'the widget marked',
  );
  const merge = { 'content-type': 'application/merge-patch+json' };
  await api.raw(`${widgets}/w`, { method: 'PATCH', headers: merge, body: { metadata: { finalizers: null } } });
  await eventually(async () => ((await api.raw(widgets)).status === 404 ? true : undefined), 'the kind gone');
});

test('a definition that cannot be honoured is refused; rules that are not evaluated are said so', async (t) => {
  const api = await TestApi.start(t);
  const path = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
  const post = (body: unknown) => api.raw(path, { method: 'POST', body });
  const base = definition();
  const changed = (spec: object) => ({ ...base, spec: { ...base.spec, ...spec } });
  assert.deepEqual(causesOf(await post({ ...base, metadata: { name: 'wrong' } })), [
    'metadata.name: FieldValueInvalid',
  ]);
  assert.deepEqual(causesOf(await post(changed({ conversion: { strategy: 'Webhook' } }))), [
    'spec.conversion.strategy: FieldValueNotSupported',
  ]);
  assert.deepEqual(
    causesOf(
      await post(
        definition({ schema: { openAPIV3Schema: { type: 'object', properties: { a: { type: 'strnig' } } } } }),
      ),
    ),
    ['spec.versions[0].schema.openAPIV3Schema.properties[a].type: FieldValueNotSupported'],
  );
  assert.deepEqual(causesOf(await post(definition({ storage: false }))), ['spec.versions: FieldValueInvalid']);
  const rules = {
    type: 'object',
    properties: { spec: { type: 'object', 'x-kubernetes-validations': [{ rule: 'self.a > 1' }] } },
  };
  const warned = await post(definition({ schema: { openAPIV3Schema: rules } }));
  assert.equal(warned.status, 201);
  assert.match(String(warned.headers.warning), /x-kubernetes-validations/);
});
