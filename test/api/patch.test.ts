import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isObject, objectOr } from '../../src/api/json.ts';
import { shapeOf } from '../../src/api/kinds/shape.ts';
import { kinds } from '../../src/api/kinds.ts';
import { mergePatch } from '../../src/api/server/patch/merge.ts';
import { strategicMerge } from '../../src/api/server/patch/strategic.ts';
import { podNamed, TestApi } from './harness.ts';

test('merge patch is RFC 7386, appendix A', () => {
  const table: readonly (readonly [unknown, unknown, unknown])[] = [
    [{ a: 'b' }, { a: 'c' }, { a: 'c' }],
    [{ a: 'b' }, { b: 'c' }, { a: 'b', b: 'c' }],
    [{ a: 'b' }, { a: null }, {}],
    [{ a: 'b', b: 'c' }, { a: null }, { b: 'c' }],
    [{ a: ['b'] }, { a: 'c' }, { a: 'c' }],
    [{ a: 'c' }, { a: ['b'] }, { a: ['b'] }],
    [{ a: { b: 'c' } }, { a: { b: 'd', c: null } }, { a: { b: 'd' } }],
    [{ a: [{ b: 'c' }] }, { a: [1] }, { a: [1] }],
    [
      ['a', 'b'],
      ['c', 'd'],
      ['c', 'd'],
    ],
    [{ a: 'b' }, ['c'], ['c']],
    [{ a: 'foo' }, null, null],
    [{ a: 'foo' }, 'bar', 'bar'],
    [{ e: null }, { a: 1 }, { e: null, a: 1 }],
    [[1, 2], { a: 'b', c: null }, { a: 'b' }],
    [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
  ];
  for (const [target, patch, expected] of table) assert.deepEqual(mergePatch(target, patch), expected);
});

const keys = fc.constantFrom('a', 'b', 'c');
const document = fc.letrec<{ value: unknown; object: object }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small' },
    fc.integer(),
    fc.string({ maxLength: 2 }),
    fc.array(fc.integer(), { maxLength: 2 }),
    tie('object'),
  ),
  object: fc.dictionary(keys, tie('value'), { maxKeys: 3, noNullPrototype: true }),
})).object;

/** The merge patch that leads from one document without nulls to another. */
function difference(from: unknown, to: unknown): unknown {
  if (!isObject(from) || !isObject(to)) return to;
  const patch: Record<string, unknown> = {};
  for (const key of Object.keys(from)) if (!(key in to)) patch[key] = null;
  for (const [key, value] of Object.entries(to))
    if (JSON.stringify(from[key]) !== JSON.stringify(value)) patch[key] = difference(from[key], value);
  return patch;
}

test('a merge patch made from two documents leads from the one to the other, once or twice applied', () => {
  fc.assert(
    fc.property(document, document, (from, to) => {
      const before = structuredClone(from);
      const patch = difference(from, to);
      const once = mergePatch(from, patch);
      assert.deepEqual(once, structuredClone(to));
      assert.deepEqual(mergePatch(once, patch), once);
      assert.deepEqual(from, before);
    }),
  );
});

const pod = shapeOf(kinds.Pod.schema);
const spec = (value: unknown) => ({ spec: value });
const names = (list: unknown) => (Array.isArray(list) ? list.map((item: unknown) => objectOr(item).name) : list);

test('strategic merge follows the keys and directives of Kubernetes', () => {
  const live = spec({
    containers: [
      { name: 'a', image: '1', env: [{ name: 'X', value: '1' }] },
      { name: 'b', image: '1' },
    ],
    nodeSelector: { k: 'v' },
  });
  const merged = (patch: unknown) => objectOr(objectOr(strategicMerge(pod, live, spec(patch))).spec);
  assert.deepEqual(merged({ containers: [{ name: 'b', image: '2' }] }).containers, [
    { name: 'a', image: '1', env: [{ name: 'X', value: '1' }] },
    { name: 'b', image: '2' },
  ]);
  assert.deepEqual(names(merged({ containers: [{ name: 'c', image: '3' }] }).containers), ['a', 'b', 'c']);
  assert.deepEqual(names(merged({ containers: [{ $patch: 'delete', name: 'a' }] }).containers), ['b']);
  assert.deepEqual(merged({ containers: [{ $patch: 'replace' }, { name: 'z', image: '9' }] }).containers, [
    { name: 'z', image: '9' },
  ]);
  assert.deepEqual(
    names(
      merged({ $setElementOrder: undefined, '$setElementOrder/containers': [{ name: 'b' }, { name: 'a' }] }).containers,
    ),
    ['b', 'a'],
  );
  assert.deepEqual(
    names(
      merged({
        '$setElementOrder/containers': [{ name: 'new' }, { name: 'b' }],
        containers: [{ name: 'new', image: '1' }],
      }).containers,
    ),
    ['new', 'a', 'b'],
  );
  assert.deepEqual(
    merged({
      containers: [
        {
          name: 'a',
          env: [
            { name: 'X', $patch: 'delete' },
            { name: 'Y', value: '2' },
          ],
        },
      ],
    }).containers,
    [
      { name: 'a', image: '1', env: [{ name: 'Y', value: '2' }] },
      { name: 'b', image: '1' },
    ],
  );
  assert.deepEqual(merged({ nodeSelector: { $patch: 'replace', other: 'x' } }).nodeSelector, { other: 'x' });
  assert.equal(merged({ nodeSelector: null }).nodeSelector, undefined);
  assert.equal(merged({ nodeSelector: { $patch: 'delete' } }).nodeSelector, undefined);
  assert.deepEqual(merged({ nodeSelector: { $retainKeys: ['n'], n: '1' } }).nodeSelector, { n: '1' });
  assert.deepEqual(merged({ tolerations: [{ key: 'a' }] }).tolerations, [{ key: 'a' }]);
  const owned = { metadata: { finalizers: ['a', 'b'] } };
  const meta = (patch: unknown) =>
    objectOr(objectOr(strategicMerge(pod, owned, { metadata: patch })).metadata).finalizers;
  assert.deepEqual(meta({ finalizers: ['b', 'c'] }), ['a', 'b', 'c']);
  assert.deepEqual(meta({ '$deleteFromPrimitiveList/finalizers': ['a'] }), ['b']);
  assert.throws(() => strategicMerge(pod, live, spec({ containers: [{ image: '1' }] })), { code: 'BadRequest' });
  assert.throws(() => strategicMerge(pod, live, spec({ $patch: 'nonsense' })), { code: 'BadRequest' });
});

test('a policy’s lists are each one value: a patch replaces them', async (t) => {
  const { client } = await TestApi.start(t);
  const ref = { namespace: 'default', name: 'p' };
  const rule = (port: number) => ({ ports: [{ port, protocol: 'TCP' as const }] });
  await client.create(kinds.NetworkPolicy, {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: ref,
    spec: {
      podSelector: { matchExpressions: [{ key: 'a', operator: 'In', values: ['x', 'y'] }] },
      ingress: [rule(1), rule(2)],
    },
  });
  const patch = {
    spec: { podSelector: { matchExpressions: [{ key: 'a', operator: 'In', values: ['x'] }] }, ingress: [rule(3)] },
  };
  const patched = await client.patch(kinds.NetworkPolicy, ref, { type: 'strategic', patch });
  assert.deepEqual(patched.spec?.podSelector?.matchExpressions?.[0]?.values, ['x']);
  assert.deepEqual(patched.spec?.ingress, [rule(3)]);
});

test('JSON patch: all operations, a test that fails changes nothing', async (t) => {
  const api = await TestApi.start(t);
  const { client } = api;
  const ref = { namespace: 'default', name: 'j' };
  await client.create(kinds.Pod, podNamed('j', { labels: { a: '1', 'x/y': '2' } }));
  const patched = await client.patch(kinds.Pod, ref, {
    type: 'json',
    patch: [
      { op: 'test', path: '/metadata/labels/a', value: '1' },
      { op: 'replace', path: '/metadata/labels/a', value: '3' },
      { op: 'move', from: '/metadata/labels/x~1y', path: '/metadata/labels/z' },
      { op: 'copy', from: '/metadata/labels/z', path: '/metadata/labels/c' },
      { op: 'add', path: '/metadata/annotations', value: { k: 'v' } },
      { op: 'remove', path: '/metadata/labels/c' },
    ],
  });
  assert.deepEqual([patched.metadata.labels, patched.metadata.annotations], [{ a: '3', z: '2' }, { k: 'v' }]);
  const failing = [
    { op: 'remove' as const, path: '/metadata/labels' },
    { op: 'test' as const, path: '/metadata/annotations/k', value: 'w' },
  ];
  await assert.rejects(client.patch(kinds.Pod, ref, { type: 'json', patch: failing }), { code: 'Invalid' });
  assert.deepEqual((await client.get(kinds.Pod, ref)).metadata.labels, { a: '3', z: '2' });
  const headers = { 'content-type': 'application/json-patch+json' };
  for (const body of [{}, [{ op: 'add' }], [{ op: 'jump', path: '/a' }], 'x'])
    assert.equal(
      (await api.raw('/api/v1/namespaces/default/pods/j', { method: 'PATCH', headers, body: JSON.stringify(body) }))
        .status,
      400,
    );
  const polluting = [{ op: 'add', path: '/__proto__/polluted', value: 1 }];
  assert.equal(
    (await api.raw('/api/v1/namespaces/default/pods/j', { method: 'PATCH', headers, body: polluting })).status,
    422,
  );
  const odd = { 'content-type': 'application/x-patch' };
  assert.equal(
    (await api.raw('/api/v1/namespaces/default/pods/j', { method: 'PATCH', headers: odd, body: {} })).status,
    415,
  );
});

test('server-side apply: what a manager says no more goes, what others say stays, contradictions conflict', async (t) => {
  const { client } = await TestApi.start(t);
  const ref = { namespace: 'default', name: 's' };
  const service = (ports: object[], labels: object = {}) => ({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { labels },
    spec: { ports },
  });
  const apply = (manager: string, patch: object, force = false) =>
    client.patch(kinds.Service, ref, { type: 'apply', patch, force }, { fieldManager: manager });
  const http = { name: 'http', port: 80 };
  const dns = { name: 'dns', port: 53, protocol: 'UDP' };
  const created = await apply('one', service([http, dns], { a: '1' }));
  assert.deepEqual(
    created.metadata.managedFields?.map(({ manager, operation }) => `${manager} ${operation}`),
    ['one Apply'],
  );
  const again = await apply('one', service([http, dns], { a: '1' }));
  assert.equal(again.metadata.resourceVersion, created.metadata.resourceVersion);
  const alone = await apply('one', service([http], { a: '1' }));
  assert.deepEqual(
    alone.spec?.ports?.map(({ port }) => port),
    [80],
  );
  await apply('one', service([http, dns], { a: '1' }));
  await apply('two', service([{ ...http, targetPort: 8080 }], { b: '2' }));
  const shrunk = await apply('one', service([dns]));
  assert.deepEqual(shrunk.metadata.labels, { b: '2' });
  assert.deepEqual(
    shrunk.spec?.ports?.map(({ port, targetPort }) => [port, targetPort]),
    [
      [80, 8080],
      [53, 53],
    ],
  );
  await assert.rejects(
    apply('one', service([dns, { ...http, targetPort: 9090 }])),
    (error: { code?: string; causes?: { field: string }[] }) => {
      assert.equal(error.code, 'Conflict');
      assert.deepEqual(
        error.causes?.map(({ field }) => field),
        ['.spec.ports[{"port":80,"protocol":"TCP"}].targetPort'],
      );
      return true;
    },
  );
  const forced = await apply('one', service([dns, { ...http, targetPort: 9090 }]), true);
  assert.equal(forced.spec?.ports?.find(({ port }) => port === 80)?.targetPort, 9090);
  const without = await apply('two', { apiVersion: 'v1', kind: 'Service', metadata: {} });
  assert.deepEqual(without.metadata.labels, undefined);
  assert.equal(without.spec?.ports?.length, 2);
});
