import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import fc from 'fast-check';
import type { Entry } from '../../src/api/client/types.ts';
import { ownKinds, type Revocation } from '../../src/api/kinds.ts';
import { Controller } from '../../src/controller/controller.ts';
import { readRevocation, revocationConditions, uniteRevocations } from '../../src/controller/revocation-list.ts';
import { CertificateAuthority } from '../../src/identity/ca.ts';
import { parseIp } from '../../src/model/address.ts';
import { parsePrefix } from '../../src/model/prefix.ts';
import { TestApi } from '../api/harness.ts';
import { silent } from '../identity/fixtures.ts';

const trustDomain = 'cluster.local';
const raw = (spec: unknown) => ({ ...object('r', {}), spec });
const entry = (spec: unknown, issues: Entry<Revocation>['issues'] = []): Entry<Revocation> => ({
  key: 'r',
  raw: raw(spec),
  object: undefined,
  issues,
});
const read = (spec: unknown) => readRevocation(entry(spec), trustDomain);

function object(name: string, spec: object): Revocation {
  const { schema } = ownKinds.Revocation;
  const all = { reason: 'a test', podUID: 'nobody', ...spec };
  if (Object.keys(spec).length > 0 && !('podUID' in spec)) Reflect.deleteProperty(all, 'podUID');
  return schema.parse({ apiVersion: 'myelin.dev/v1alpha1', kind: 'Revocation', metadata: { name }, spec: all });
}

test('each way to name somebody is read', () => {
  assert.deepEqual(read({ podUID: 'u-1' }).revoked, { serials: [], podUids: ['u-1'], spiffeIds: [] });
  assert.deepEqual(read({ serviceAccount: { namespace: 'a', name: 'b' } }).revoked.spiffeIds, [
    'spiffe://cluster.local/ns/a/sa/b',
  ]);
  assert.deepEqual(read({ node: 'n1' }).revoked.spiffeIds, ['spiffe://cluster.local/node/n1']);
  assert.deepEqual(read({ serial: '00:AB:0c' }).revoked.serials, ['ab0c']);
});

test('what a newer server let in revokes all that it names, without an end that can be read for ever, and says so', () => {
  const both = read({ podUID: 'u', node: 'n', expires: 'at noon' });
  assert.deepEqual(both.revoked, { serials: [], podUids: ['u'], spiffeIds: ['spiffe://cluster.local/node/n'] });
  assert.equal(both.expires, undefined);
  const issue = { field: 'spec.until', reason: 'FieldValueInvalid', message: 'unknown field "spec.until"' } as const;
  const odd = readRevocation(entry({ podUID: 'u', until: 'x' }, [issue]), trustDomain);
  assert.deepEqual(odd.revoked.podUids, ['u']);
  const said = Object.fromEntries(revocationConditions(odd, 7, 0).map(({ type, status }) => [type, status]));
  assert.deepEqual(said, { Effective: 'True', Understood: 'False' });
  const nobody = revocationConditions(read({ cluster: 'all' }), 7, 0);
  assert.deepEqual(
    nobody.map(({ type, status, reason }) => `${type} ${status} ${reason}`)[0],
    'Effective False NotUnderstood',
  );
});

test('reading never throws, and what it says is revoked can stand in a bundle', () => {
  fc.assert(
    fc.property(fc.anything(), fc.anything(), fc.anything(), fc.anything(), (podUID, serviceAccount, node, serial) => {
      const { revoked } = read({ podUID, serviceAccount, node, serial });
      for (const list of Object.values(revoked)) for (const each of list) assert.equal(typeof each, 'string');
    }),
  );
});

test('what has expired is believed again', () => {
  const all = [read({ podUID: 'a', expires: '2026-01-01T00:00:00Z' }), read({ podUID: 'b' })];
  const noon = Date.parse('2026-01-01T00:00:00Z');
  assert.deepEqual(uniteRevocations(all, noon - 1).podUids, ['a', 'b']);
  assert.deepEqual(uniteRevocations(all, noon).podUids, ['b']);
});

async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!(await condition())) {
    if (performance.now() > deadline) assert.fail(`never came: ${what}`);
    await wait(5);
  }
}

async function start(t: TestContext) {
  const api = await TestApi.start(t);
  const directory = mkdtempSync(join(tmpdir(), `myelin-revocations-${process.pid}-`));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const caDirectory = join(directory, 'ca');
  const ca = await CertificateAuthority.open({ trustDomain, directory: caDirectory });
  const server = await ca.issueServer({ commonName: 'controller', addresses: [parseIp('127.0.0.1')] });
  const controller = () =>
    Controller.start(
      { listen: { host: '127.0.0.1', port: 0 }, trustDomain, caDirectory, podCidrs: [parsePrefix('10.244.0.0/16')] },
      { api: api.client, credentials: { cert: server.chain, key: server.privateKey }, logger: silent },
    );
  return { api, controller };
}

test('the objects are in the trust bundle as long as they are there, also over restarts', async (t) => {
  const { api, controller } = await start(t);
  const first = await controller();
  t.after(() => first.close());
  const revocations = (of: Controller) => of.ca.bundle.revocations;
  await first.ca.revoke({ podUids: ['by-hand'] });
  const from = first.ca.bundle.sequence;
  await api.client.create(ownKinds.Revocation, object('stolen', { podUID: 'u-1' }));
  await api.client.create(ownKinds.Revocation, object('laptop', { node: 'n1' }));
  await until('both', () => revocations(first).podUids.has('u-1') && revocations(first).spiffeIds.size === 1);
  assert.deepEqual([...revocations(first).podUids].sort(), ['by-hand', 'u-1']);
  assert.ok(first.ca.bundle.sequence > from);
  await until('the status', async () => {
    const { status } = await api.client.get(ownKinds.Revocation, { name: 'stolen' });
    return status?.target === 'pod u-1' && status.conditions?.[0]?.status === 'True';
  });
  await first.close();
  const second = await controller();
  t.after(() => second.close());
  assert.deepEqual([...revocations(second).podUids].sort(), ['by-hand', 'u-1']);
  await api.client.delete(ownKinds.Revocation, { name: 'stolen' });
  await until('believed again', () => !revocations(second).podUids.has('u-1'));
  assert.deepEqual([...revocations(second).podUids], ['by-hand'], 'what was said to the CA itself has no way back');
  assert.equal(revocations(second).spiffeIds.size, 1);
});

test('a revocation that expires ends by itself and says so', async (t) => {
  const { api, controller } = await start(t);
  const running = await controller();
  t.after(() => running.close());
  const expires = new Date(Date.now() + 3000).toISOString();
  await api.client.create(ownKinds.Revocation, object('short', { podUID: 'u-2', expires }));
  await until('in force', () => running.ca.bundle.revocations.podUids.has('u-2'));
  await until('over', () => !running.ca.bundle.revocations.podUids.has('u-2'));
  await until('the status', async () => {
    const { status } = await api.client.get(ownKinds.Revocation, { name: 'short' });
    return status?.conditions?.[0]?.reason === 'Expired';
  });
});
