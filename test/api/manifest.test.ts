import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { kinds } from '../../src/api/kinds.ts';
import { loadManifests, ManifestError } from '../../src/api/manifest.ts';
import { type Applied, applyManifests, deleteManifests } from '../../src/api/manifest-apply.ts';
import { casePath, listCases } from '../support/shared.ts';
import { TestApi } from './harness.ts';

function directoryOf(t: TestContext, files: Record<string, string>): string {
  const directory = mkdtempSync(join(tmpdir(), `myelin-manifest-${process.pid}-`));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text);
  return directory;
}

function complaints(paths: string[], directory: string): string[] {
  try {
    loadManifests(paths);
  } catch (error) {
    assert.ok(error instanceof ManifestError);
    return error.message.replaceAll(`${directory}/`, '').split('\n');
  }
  assert.fail('nothing was wrong');
}

const shop = `apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  serviceAccountName: web
  containers: [{name: c, image: nginx, ports: [{containerPort: 80}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{ports: [{port: 80}]}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
`;

test('what is wrong is said with file, line, column, field and what was expected, all at once', (t) => {
  const directory = directoryOf(t, {
    'a.yaml': `# a comment
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: web
spec:
  podSelector: {}
  ingress:
  - form:
    - podSelector: {}
    ports:
    - port: 80
      protocol: tcp
  - from:
    - ipBlock:
        cidr: 10.0.0.0/8
        except:
        - 11.0.0.0/8
---
apiVersion: v1
kind: Pod
metadata:
  name: p
spec: {}
`,
    'b.json':
      '{"apiVersion": "v1", "kind": "Service",\n "metadata": {"name": "S"},\n "spec": {"ports": [{"port": "eighty"}]}}',
    'c.yml': 'apiVersion: apps/v1beta1\nkind: Deployment\nmetadata: {name: d}\n---\njust text\n---\nkind: Pod\n',
    'd.yaml': 'a: [1, 2\nb: 3\n',
    'e.yaml': 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: b}\ndata: {c: d}\n',
    'ignored.txt': '{',
  });
  assert.deepEqual(complaints([directory], directory), [
    'd.yaml:2:1: Flow sequence in block collection must be sufficiently indented and end with a ]',
    'e.yaml:5:1: Map keys must be unique',
    'a.yaml:9:5: NetworkPolicy web spec.ingress[0].form: unknown field "spec.ingress[0].form": expected "from", "ports"',
    'a.yaml:13:17: NetworkPolicy web spec.ingress[0].ports[0].protocol: Unsupported value: "tcp": supported values: "TCP", "UDP", "SCTP"',
    'a.yaml:18:11: NetworkPolicy web spec.ingress[1].from[0].ipBlock.except[0]: Invalid value: "11.0.0.0/8": must be a strict subset of `cidr`',
    'a.yaml:24:1: Pod p spec.containers: Required value',
    'b.json:3:30: Service S spec.ports[0].port: Invalid value: "string": spec.ports[0].port must be of type number',
    'c.yml:2:7: kind: there is no kind Deployment in apps/v1beta1; Deployment is in apps/v1',
    'c.yml:5:1: expected a Kubernetes object',
    'c.yml:7:1: apiVersion: Required value',
    'c.yml:7:1: metadata: Required value',
  ]);
});

test('what only the server would see is seen before', (t) => {
  const policy = (spec: string) =>
    `apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web}\nspec:\n  podSelector: {}\n  ingress:\n  - ${spec}\n`;
  const directory = directoryOf(t, {
    'a.yaml': policy('from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/8]}}]'),
    'b.yaml': policy('ports: [{port: 80, endPort: 79}]').replace('name: web', 'name: Web'),
  });
  assert.deepEqual(
    complaints(
      ['a.yaml', 'b.yaml'].map((name) => join(directory, name)),
      directory,
    ),
    [
      'a.yaml:7:50: NetworkPolicy web spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: "11.0.0.0/8": must be a strict subset of `cidr`',
      `b.yaml:3:18: NetworkPolicy Web metadata.name: Invalid value: "Web": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com')`,
      'b.yaml:7:33: NetworkPolicy Web spec.ingress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`',
    ],
  );
});

test('a file that is not there, is no YAML bomb’s victim, or is empty', (t) => {
  const bomb = `a: &a [x,x,x,x,x,x,x,x,x]\n${'bcdefghij'
    .split('')
    .map((name, i) => `${name}: &${name} [${Array(9).fill(`*${'abcdefghi'[i]}`).join(',')}]`)
    .join('\n')}\n`;
  const directory = directoryOf(t, { 'bomb.yaml': bomb, 'empty.yaml': '---\n# nothing\n---\n' });
  assert.match(complaints([join(directory, 'none.yaml')], directory)[0] ?? '', /^none.yaml: cannot be read: ENOENT/);
  assert.match(complaints([join(directory, 'bomb.yaml')], directory)[0] ?? '', /^bomb.yaml:1:1: Excessive alias count/);
  assert.deepEqual(complaints([join(directory, 'empty.yaml')], directory), ['empty.yaml: has no object to apply']);
});

test('objects are applied in an order that works, changed where they changed, and deleted', async (t) => {
  const api = await TestApi.start(t);
  const directory = directoryOf(t, { 'shop.yaml': shop });
  const outcomes = (applied: readonly Applied[]) => applied.map(({ object, outcome }) => `${object.kind} ${outcome}`);
  const objects = loadManifests([directory]);
  assert.deepEqual(outcomes(await applyManifests(api.client, objects)), [
    'Namespace created',
    'ServiceAccount created',
    'NetworkPolicy created',
    'Pod created',
  ]);
  assert.deepEqual(outcomes(await applyManifests(api.client, objects)), [
    'Namespace unchanged',
    'ServiceAccount unchanged',
    'NetworkPolicy unchanged',
    'Pod unchanged',
  ]);
  writeFileSync(
    join(directory, 'shop.yaml'),
    shop.replace('ingress: [{ports: [{port: 80}]}]', 'policyTypes: [Ingress]'),
  );
  assert.deepEqual(outcomes(await applyManifests(api.client, loadManifests([directory]))), [
    'Namespace unchanged',
    'ServiceAccount unchanged',
    'NetworkPolicy configured',
    'Pod unchanged',
  ]);
  const policy = await api.client.get(kinds.NetworkPolicy, { namespace: 'shop', name: 'web' });
  assert.deepEqual(policy.spec, { podSelector: { matchLabels: { app: 'web' } }, policyTypes: ['Ingress'] });
  assert.equal((await deleteManifests(api.client, objects)).length, 4);
  assert.equal((await deleteManifests(api.client, objects)).length <= 1, true);
});

test('what the server refuses leaves everything as it was', async (t) => {
  const api = await TestApi.start(t);
  const directory = directoryOf(t, { 'shop.yaml': shop });
  await applyManifests(api.client, loadManifests([directory]));
  const { resourceVersion } = await api.client.list(kinds.Pod);
  const moved = shop
    .replace('name: shop}', 'name: shop, labels: {changed: "yes"}}')
    .replace('serviceAccountName: web', 'serviceAccountName: default');
  writeFileSync(join(directory, 'shop.yaml'), moved);
  await assert.rejects(applyManifests(api.client, loadManifests([directory])), { code: 'Invalid' });
  assert.equal((await api.client.list(kinds.Pod)).resourceVersion, resourceVersion);
});

test('the upstream manifests load and apply unchanged', async (t) => {
  const api = await TestApi.start(t);
  const boutique = loadManifests([
    casePath('online-boutique', 'kubernetes-manifests.yaml'),
    casePath('online-boutique', 'network-policies'),
  ]);
  await applyManifests(api.client, boutique);
  assert.equal((await api.client.list(kinds.Deployment)).entries.length, 12);
  assert.equal((await api.client.list(kinds.NetworkPolicy)).entries.length, 13);
  for (const { object } of [...(await api.client.list(kinds.Deployment)).entries]) assert.notEqual(object, undefined);
  for (const name of listCases('recipes')) {
    const objects = loadManifests([casePath('recipes', name)]);
    assert.ok(objects.length > 0, name);
    await applyManifests(api.client, objects);
    await deleteManifests(api.client, objects);
  }
});

test('a directory in a directory is left alone, as kubectl does', (t) => {
  const directory = directoryOf(t, { 'a.yaml': 'apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n' });
  mkdirSync(join(directory, 'deeper'));
  writeFileSync(join(directory, 'deeper', 'b.yaml'), '{');
  assert.deepEqual(
    loadManifests([directory]).map(({ object }) => object.metadata.name),
    ['a'],
  );
});
