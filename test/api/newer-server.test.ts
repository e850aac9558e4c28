import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { kinds } from '../../src/api/kinds.ts';
import { Store } from '../../src/api/server/storage/store.ts';
import { TestApi } from './harness.ts';

/* Objects that a newer version of this server has stored: given out whole, and never made into what they are not. */

const spec = {
  podSelector: { matchLabels: { app: 'web' } },
  policyTypes: ['Ingress', 'Sideways'],
  ingress: [{ from: [{ podSelector: {} }], fromServices: [{ name: 'client' }] }, { ports: [{ port: 80 }] }],
};
const path = '/apis/networking.k8s.io/v1/namespaces/default/networkpolicies/newer';

test('the status of an object that is not understood can be written, and leaves all the rest as it is', async (t) => {
  const api = await TestApi.start(t);
  await api.restart(async () => {
    const store = new Store({ file: join(api.directory, 'api.db'), historyEvents: 1000, historyBytes: 1 << 20 });
    store.put('networking.k8s.io/networkpolicies', {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { namespace: 'default', name: 'newer', uid: 'u', generation: 1 },
      spec,
    });
    store.close();
  });
  const patch = (body: object, sub = '') =>
    api.raw(path + sub, { method: 'PATCH', body, headers: { 'content-type': 'application/merge-patch+json' } });

  const conditions = [{ type: 'Understood', status: 'False' }];
  const said = await patch({ status: { conditions }, spec: { ingress: [] } }, '/status');
  assert.deepEqual([said.status, said.json.spec, said.json.status], [200, spec, { conditions }]);
  const { entries } = await api.client.list(kinds.NetworkPolicy);
  assert.deepEqual(
    entries.map(({ object, raw }) => [object, { ...raw, metadata: raw.metadata.generation }]),
    [
      [
        undefined,
        { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: 1, spec, status: { conditions } },
      ],
    ],
  );
  assert.equal((await patch({ status: { conditions: [{ type: 7 }] } }, '/status')).status, 422);
  assert.equal((await patch({ status: { mood: 'good' } }, '/status')).status, 400);
  // As a whole it is not written again: that would mean to drop what is not understood.
  assert.equal((await patch({ metadata: { labels: { a: 'b' } } })).status, 400);
});
