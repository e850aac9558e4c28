import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { definitionDirectory, definitionFiles } from '../../setup/crds.ts';
import { installDefinitions } from '../../src/api/definitions.ts';
import { objectOr } from '../../src/api/json.ts';
import { kinds, ownKinds } from '../../src/api/kinds.ts';
import { loadManifests } from '../../src/api/manifest.ts';
import { causesOf, TestApi } from './harness.ts';
import { findKubectls, Kubectl } from './kubectl.ts';

const base = '/apis/myelin.dev/v1alpha1';
const revocation = (spec: object, name = 'r') => ({
  apiVersion: 'myelin.dev/v1alpha1',
  kind: 'Revocation',
  metadata: { name },
  spec,
});
const settings = (spec: object, name = 'default') => ({
  apiVersion: 'myelin.dev/v1alpha1',
  kind: 'ClusterSettings',
  metadata: { name },
  spec,
});

test('the manifests in deploy/crds are what the code reads (else: node setup/crds.ts)', () => {
  const files = definitionFiles();
  assert.deepEqual(readdirSync(definitionDirectory).sort(), [...files.keys()].sort());
  for (const [name, text] of files) assert.equal(readFileSync(join(definitionDirectory, name), 'utf8'), text, name);
});

test('own kinds are refused with the field where they are not understood', async (t) => {
  const api = await TestApi.start(t);
  assert.equal((await api.raw(`${base}/revocations`)).status, 404);
  await installDefinitions(api.client);
  // Controllers start again.
  await installDefinitions(api.client);
  const reason = 'stolen';
  const wrong: readonly (readonly [string, object, RegExp])[] = [
    ['revocations', revocation({ reason }), /^spec: FieldValueInvalid$/],
    ['revocations', revocation({ podUID: 'a', node: 'n', reason }), /^spec: FieldValueInvalid$/],
    ['revocations', revocation({ podUID: 'a' }), /^spec.reason: FieldValueRequired$/],
    ['revocations', revocation({ podUID: 'A b', reason }), /^spec.podUID: FieldValueInvalid$/],
    ['revocations', revocation({ serial: 'xyz', reason }), /^spec.serial: FieldValueInvalid$/],
    [
      'revocations',
      revocation({ serviceAccount: { name: 'a' }, reason }),
      /^spec.serviceAccount.namespace: FieldValueRequired$/,
    ],
    ['revocations', revocation({ node: 'n', reason, expires: 'tomorrow' }), /^spec.expires: FieldValueInvalid$/],
    ['clustersettings', settings({ defaultVerdict: 'maybe' }), /^spec.defaultVerdict: FieldValueNotSupported$/],
    ['clustersettings', settings({ breachRadius: 'cluster' }), /^spec.breachRadius: FieldValueNotSupported$/],
    ['clustersettings', settings({ rekeySeconds: 1 }), /^spec.rekeySeconds: FieldValueInvalid$/],
    ['clustersettings', settings({}, 'another'), /^metadata.name: FieldValueNotSupported$/],
  ];
  for (const [plural, body, cause] of wrong) {
    const answer = await api.raw(`${base}/${plural}`, { method: 'POST', body });
    assert.equal(answer.status, 422, JSON.stringify(body));
    assert.match(causesOf(answer).join(), cause, JSON.stringify(body));
  }
  // Whatever the request says of unknown fields.
  for (const fieldValidation of ['', '?fieldValidation=Ignore', '?fieldValidation=Warn']) {
    const body = revocation({ podUID: 'a', reason, until: 'later' });
    const answer = await api.raw(`${base}/revocations${fieldValidation}`, { method: 'POST', body });
    assert.equal(answer.status, 400, answer.text);
    assert.match(answer.text, /unknown field \\"spec.until\\"/);
  }
});

test('who may write them: administrators, and nodes only read', async (t) => {
  const api = await TestApi.start(t);
  await installDefinitions(api.client);
  const node = await api.pki.node('n1');
  const body = revocation({ node: 'n2', reason: 'mine now' });
  assert.equal((await api.raw(`${base}/revocations`, { method: 'POST', body, as: node })).status, 403);
  assert.equal((await api.raw(`${base}/revocations`, { method: 'POST', body })).status, 201);
  assert.equal((await api.raw(`${base}/revocations`, { as: node })).status, 200);
  assert.equal((await api.raw(`${base}/revocations/r`, { method: 'DELETE', as: node })).status, 403);
});

test('manifests have them too, and what is wrong is said with its place', (t) => {
  const directory = mkdtempSync(join(tmpdir(), `myelin-own-kinds-${process.pid}-`));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const file = join(directory, 'own.json');
  writeFileSync(file, JSON.stringify(revocation({ node: 'n', reason: 'r' })));
  assert.deepEqual(
    loadManifests([file]).map(({ resource }) => resource.plural),
    ['revocations'],
  );
  writeFileSync(file, JSON.stringify(revocation({ node: 'n', podUID: 'u', reason: 'r', untill: 5 })));
  assert.throws(() => loadManifests([file]), /own\.json:1:\d+: .*untill[\s\S]*exactly one of podUID/);
});

test('the client reads and writes them, and the status is written apart', async (t) => {
  const api = await TestApi.start(t);
  await installDefinitions(api.client);
  const made = await api.client.create(
    ownKinds.Revocation,
    ownKinds.Revocation.schema.parse(revocation({ serviceAccount: { namespace: 'a', name: 'b' }, reason: 'x' })),
  );
  assert.equal(made.spec.serviceAccount?.name, 'b');
  await api.client.patchStatus(
    ownKinds.Revocation,
    { name: 'r' },
    { type: 'merge', patch: { spec: { reason: 'not by this way' }, status: { target: 'service account a/b' } } },
  );
  const read = await api.client.get(ownKinds.Revocation, { name: 'r' });
  assert.deepEqual([read.spec.reason, read.status?.target], ['x', 'service account a/b']);
});

for (const binary of findKubectls())
  test(`kubectl gets, applies, describes and deletes them: ${binary}`, async (t) => {
    const api = await TestApi.start(t);
    const kubectl = new Kubectl(binary, api);
    for (const name of definitionFiles().keys())
      assert.equal((await kubectl.try('apply', '-f', join(definitionDirectory, name))).code, 0);
    const file = join(api.directory, 'own.json');
    const put = async (object: object) => {
      writeFileSync(file, JSON.stringify(object));
      return await kubectl.try('apply', '-f', file);
    };
    const applied = await put(revocation({ node: 'node-3', reason: 'lost in transport' }, 'node-3'));
    assert.equal(applied.code, 0, applied.err);
    assert.equal((await put(settings({ defaultVerdict: 'deny', breachRadius: 'pod' }))).code, 0);
    const patch = { status: { target: 'node node-3', conditions: [{ type: 'Effective', status: 'True' }] } };
    await api.client.patchStatus(ownKinds.Revocation, { name: 'node-3' }, { type: 'merge', patch });
    const shown = await kubectl.try('get', 'revoke');
    assert.match(shown.out, /NAME +TARGET +REASON +EXPIRES +EFFECTIVE +AGE/);
    assert.match(shown.out, /node-3 +node node-3 +lost in transport +(<none>|) *True/);
    assert.match((await kubectl.try('get', 'mset')).out, /default +deny +pod/);
    assert.match((await kubectl.try('describe', 'revocation', 'node-3')).out, /Reason: +lost in transport/);
    const refused = await put(settings({ defaultVerdict: 'deny', brachRadius: 'pod' }));
    assert.notEqual(refused.code, 0);
    assert.match(refused.err, /brachRadius/);
    assert.equal((await kubectl.try('delete', 'revocation', 'node-3')).code, 0);
    assert.equal((await kubectl.try('get', 'revocations')).out, '');
    const { items } = objectOr((await api.raw('/apis/apiextensions.k8s.io/v1/customresourcedefinitions')).json);
    assert.equal(Array.isArray(items) && items.length, 2);
    assert.ok(kinds.CustomResourceDefinition);
  });
