import assert from 'node:assert/strict';
import { test } from 'node:test';
import { installDefinitions } from '../../src/api/definitions.ts';
import { ownKinds } from '../../src/api/kinds.ts';
import { readClusterState } from '../../src/cli/policy/view.ts';
import { SettingsStatusController } from '../../src/controller/settings-status.ts';
import type { PolicyContext } from '../../src/policy/kinds.ts';
import { eventually, silent, TestApi } from '../api/harness.ts';

test('who reads the cluster from the API reads its policies as its agents do', async (t) => {
  const api = await TestApi.start(t);
  const bare = await readClusterState(api.client);
  const said = ({ trustDomain, rootNamespace }: PolicyContext) => ({ trustDomain, rootNamespace });
  const nothing = { trustDomain: undefined, rootNamespace: undefined };
  assert.deepEqual(said(bare.context), nothing, 'a cluster that says nothing: the defaults');
  await installDefinitions(api.client);
  const settings = {
    ...{ apiVersion: 'myelin.dev/v1alpha1', kind: 'ClusterSettings' },
    ...{ metadata: { name: 'default' }, spec: { istioRootNamespace: 'mesh', defaultVerdict: 'deny' } },
  };
  await api.client.create(ownKinds.ClusterSettings, ownKinds.ClusterSettings.schema.parse(settings));
  const controller = new SettingsStatusController({ api: api.client, logger: silent, trustDomain: 'shop.example' });
  t.after(() => controller.close());
  controller.start();
  const read = await eventually(async () => {
    const now = await readClusterState(api.client);
    return now.context.trustDomain === undefined ? undefined : now;
  }, 'the controller says what it signs for');
  assert.deepEqual(said(read.context), { trustDomain: 'shop.example', rootNamespace: 'mesh' });
  assert.equal(read.state.view.settings.trustDomain, 'shop.example');
  assert.equal(read.state.view.settings.defaultDeny, true);
});
