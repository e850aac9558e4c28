import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pino } from 'pino';
import { ProxySecrets } from '../../src/agent/proxy/secrets.ts';
import { kinds } from '../../src/api/kinds.ts';
import type { NamedSecret } from '../../src/policy/proxy/tls.ts';
import { grantAnnotation, secretsNamespace } from '../../src/policy/tls.ts';
import { TestApi } from '../api/harness.ts';
import { TestPki } from '../api/pki.ts';
import { until } from '../proxy/harness.ts';

const shown: NamedSecret = {
  role: 'terminate',
  secret: { name: 'web', by: 'shop', certificate: 'tls.crt', privateKey: 'tls.key' },
};
const trusted: NamedSecret = { role: 'originate', secret: { name: 'web', by: '', trustedCA: 'ca.crt' } };

test('Secrets are watched as long as policy names them; what is wrong with one is said, and nothing that is in it', async (t) => {
  const api = await TestApi.start(t);
  const client = api.clientAs(await api.pki.node('n1'));
  await api.client.create(kinds.Namespace, {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: secretsNamespace },
  });
  const logged: string[] = [];
  const logger = pino({ level: 'trace' }, { write: (line: string) => logged.push(line) });
  let changes = 0;
  const secrets = new ProxySecrets({ api: client, logger, onChange: () => changes++ });
  t.after(async () => {
    await secrets.close();
    client.close();
  });
  const said = (pattern: RegExp) =>
    until(
      () => pattern.test(secrets.problems.join()),
      () => `${pattern} in ${secrets.problems.join()}`,
    );
  const pki = await TestPki.create();
  const [own, other] = await Promise.all([pki.issue([{ CN: ['a'] }]), pki.issue([{ CN: ['b'] }])]);
  const put = async (data: Record<string, string>, grants?: string): Promise<void> => {
    const metadata = { name: 'web', namespace: secretsNamespace };
    const annotations = grants === undefined ? {} : { [grantAnnotation]: grants };
    const encoded = Object.entries(data).map(([key, text]) => [key, Buffer.from(text).toString('base64')]);
    const object = {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { ...metadata, annotations },
      data: Object.fromEntries(encoded),
    } as const;
    await api.client.delete(kinds.Secret, { namespace: secretsNamespace, name: 'web' }).catch(() => undefined);
    await api.client.create(kinds.Secret, object);
  };

  assert.equal(secrets.settled, false);
  secrets.want([shown]);
  assert.equal(secrets.settled, false);
  assert.deepEqual(secrets.usable, []);
  await said(/myelin-secrets\/web is not there/);
  assert.equal(secrets.settled, true);
  const pair = { 'tls.crt': own.cert, 'tls.key': own.key };
  await put(pair);
  await said(/is not for policies of the namespace shop/);
  await put(pair, 'other, shop');
  await until(() => secrets.usable.length === 1, 'it can be used');
  assert.deepEqual(secrets.usable, [{ ...shown, certificate: own.cert, privateKey: own.key }]);
  assert.deepEqual(secrets.problems, []);

  await put({ ...pair, 'tls.key': other.key }, '*');
  await said(/a key in tls.key that is not its certificate’s/);
  await put({ 'tls.crt': own.cert }, '*');
  await said(/has no tls.key/);
  await put({ ...pair, 'tls.key': 'x' }, '*');
  await said(/no private key in tls.key/);
  await put({ ...pair, 'tls.crt': 'x' }, '*');
  await said(/no certificate in tls.crt/);

  // A policy of the whole cluster may name any; each side is looked at on its own.
  secrets.want([shown, trusted]);
  await put({ 'ca.crt': pki.ca }, '*');
  await until(() => secrets.usable.length === 1, 'one can be used');
  assert.deepEqual(secrets.usable, [{ ...trusted, trustedCA: pki.ca }]);
  await put({ ...pair, 'ca.crt': pki.ca }, 'shop');
  await until(() => secrets.usable.length === 2, 'both can be used');

  const before = changes;
  secrets.want([]);
  assert.ok(changes > before);
  assert.deepEqual([secrets.usable, secrets.problems], [[], []]);
  assert.ok(!logged.join().includes('PRIVATE KEY'));
});

test('a Secret that the API does not show closes, and says why', async (t) => {
  const api = await TestApi.start(t);
  const client = api.clientAs(await api.pki.issue([{ CN: ['eve'] }, { O: ['people'] }]));
  const secrets = new ProxySecrets({ api: client, logger: pino({ level: 'silent' }), onChange: () => {} });
  t.after(async () => {
    await secrets.close();
    client.close();
  });
  secrets.want([shown]);
  await until(
    () => /cannot be read: .*forbidden/.test(secrets.problems.join()),
    () => secrets.problems.join(),
  );
});
