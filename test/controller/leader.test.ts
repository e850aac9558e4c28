import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { kinds } from '../../src/api/kinds.ts';
import { Leader } from '../../src/controller/leader.ts';
import { TestApi } from '../api/harness.ts';
import { silent } from '../identity/fixtures.ts';

async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!(await condition())) {
    if (performance.now() > deadline) assert.fail(`never came: ${what}`);
    await wait(5);
  }
}

test('one leads at a time; a leader that stops hands over at once, one that falls silent after its time', async (t) => {
  const api = await TestApi.start(t);
  const leading = new Set<string>();
  let most = 0;
  const candidate = (identity: string, client = api.client) =>
    new Leader(
      { identity, durationMs: 600, intervalMs: 50 },
      {
        api: client,
        logger: silent,
        onStarted: () => {
          leading.add(identity);
          most = Math.max(most, leading.size);
        },
        onStopped: async () => void leading.delete(identity),
      },
    );
  const all = ['a', 'b', 'c'].map((identity) => candidate(identity));
  t.after(() => Promise.all(all.map((each) => each.close())));
  for (const each of all) each.start();
  await until('a leader', () => leading.size === 1);
  await wait(300);
  assert.equal(leading.size, 1);
  const lease = async () =>
    (await api.client.get(kinds.Lease, { namespace: 'kube-system', name: 'myelin-controller' })).spec;
  assert.equal((await lease())?.holderIdentity, [...leading][0]);
  const first = [...leading][0] ?? '';
  const index = ['a', 'b', 'c'].indexOf(first);
  await all[index]?.close();
  assert.ok(!leading.has(first));
  await until('another', () => leading.size === 1);
  // Somebody who never says anything again is waited for, then replaced.
  const rest = all.filter((_, i) => i !== index);
  await Promise.all(rest.map((each) => each.close()));
  const current = await api.client.get(kinds.Lease, { namespace: 'kube-system', name: 'myelin-controller' });
  await api.client.replace(kinds.Lease, { ...current, spec: { ...current.spec, holderIdentity: 'dead' } });
  const heir = candidate('heir');
  t.after(() => heir.close());
  heir.start();
  await wait(200);
  assert.equal(heir.leading, false);
  await until('the heir', () => heir.leading);
  // The same identity comes back at once.
  await heir.close();
  const again = await api.client.get(kinds.Lease, { namespace: 'kube-system', name: 'myelin-controller' });
  await api.client.replace(kinds.Lease, { ...again, spec: { ...again.spec, holderIdentity: 'phoenix' } });
  const phoenix = candidate('phoenix');
  t.after(() => phoenix.close());
  phoenix.start();
  await until('the phoenix', () => phoenix.leading);
  assert.equal(most, 1);
});

test('a leader that cannot renew stops before anybody else may begin', async (t) => {
  const api = await TestApi.start(t);
  let stopped = 0;
  const leader = new Leader(
    { identity: 'a', durationMs: 400, intervalMs: 30 },
    { api: api.client, logger: silent, onStarted: () => {}, onStopped: async () => void stopped++ },
  );
  t.after(() => leader.close());
  leader.start();
  await until('a leader', () => leader.leading);
  await api.restart(async () => {
    await until('the end', () => stopped === 1);
    assert.equal(leader.leading, false);
  });
  await until('a leader again', () => leader.leading);
});
