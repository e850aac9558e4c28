import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ApiClient } from '../../src/api/client/client.ts';
import { inClusterEndpoint, readKubeconfig, writeKubeconfig } from '../../src/api/client/kubeconfig.ts';
import { kinds } from '../../src/api/kinds.ts';
import { TestApi } from './harness.ts';

test('a kubeconfig is read as it is written, with its material inside or in files', async (t) => {
  const api = await TestApi.start(t);
  const endpoint = readKubeconfig(api.kubeconfig());
  assert.deepEqual(endpoint, api.endpointAs(api.adminPem));
  const write = (name: string, text: string) => writeFileSync(join(api.directory, name), text);
  write('ca.pem', endpoint.ca);
  write('cert.pem', endpoint.cert ?? '');
  write('key.pem', endpoint.key ?? '');
  write(
    'files',
    `apiVersion: v1
kind: Config
current-context: other
clusters: [{name: c, cluster: {server: '${endpoint.url}', certificate-authority: ca.pem}}]
users: [{name: u, user: {client-certificate: cert.pem, client-key: ${join(api.directory, 'key.pem')}}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
`,
  );
  const client = new ApiClient(readKubeconfig(join(api.directory, 'files'), 'x'));
  t.after(() => client.close());
  assert.equal((await client.list(kinds.Namespace)).entries.length, 4);
  assert.match(await client.serverVersion(), /^v1\.\d+/);
  assert.throws(() => readKubeconfig(join(api.directory, 'files')), /there is no context "other"/);
});

test('what is not supported is refused and not passed over', (t) => {
  const directory = mkdtempSync(join(tmpdir(), `myelin-kubeconfig-${process.pid}-`));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const file = join(directory, 'config');
  const config = (cluster: string, user: string) => `
current-context: x
clusters: [{name: c, cluster: {server: 'https://h', ${cluster}}}]
users: [{name: u, user: {${user}}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
`;
  const ca = `certificate-authority-data: ${Buffer.from('ca').toString('base64')}`;
  const refusals: readonly (readonly [string, RegExp])[] = [
    [config('insecure-skip-tls-verify: true', 'token: t'), /insecure-skip-tls-verify is not supported/],
    [config(ca, 'exec: {command: x}'), /only client certificates and tokens/],
    [config(ca, 'username: x'), /only client certificates and tokens/],
    [config('x: y', 'token: t'), /no certificate-authority/],
    [config(ca, 'x: y'), /neither client-certificate and client-key nor a token/],
    [config(ca, 'client-certificate: none.pem'), /none.pem cannot be read/],
    ['current-context: x', /there is no context "x"/],
    ['- 1', /is not a kubeconfig/],
    ['a: [', /is not a kubeconfig/],
  ];
  for (const [text, message] of refusals) {
    writeFileSync(file, text);
    assert.throws(
      () => readKubeconfig(file),
      (error: { code?: string; message?: string }) => error.code === 'Kubeconfig' && message.test(error.message ?? ''),
      text,
    );
  }
  writeFileSync(file, config(ca, 'tokenFile: token'));
  writeFileSync(join(directory, 'token'), 'one\n');
  const { token } = readKubeconfig(file);
  assert.equal(token?.(), 'one');
  writeFileSync(join(directory, 'token'), 'two\n');
  assert.equal(token?.(), 'two');
  assert.match(writeKubeconfig({ url: 'https://h', ca: 'ca', token: () => 't' }, 'n'), /"token": "t"/);
});

test('a pod finds the API by its service account', (t) => {
  const directory = mkdtempSync(join(tmpdir(), `myelin-account-${process.pid}-`));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  assert.equal(inClusterEndpoint({}, directory), undefined);
  writeFileSync(join(directory, 'ca.crt'), 'ca');
  writeFileSync(join(directory, 'token'), 'secret\n');
  const endpoint = inClusterEndpoint(
    { KUBERNETES_SERVICE_HOST: 'fd00::1', KUBERNETES_SERVICE_PORT: '6443' },
    directory,
  );
  assert.deepEqual([endpoint?.url, endpoint?.ca, endpoint?.token?.()], ['https://[fd00::1]:6443', 'ca', 'secret']);
});
