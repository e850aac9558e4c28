import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { statusesOf } from '../support/http-talk.ts';
import { runInOwnNamespace } from '../support/namespace.ts';
import { asking, get, HttpPods, policy } from './http-pods.ts';

/** What policies' options mean for requests: who is told of what, and what becomes of connections that are open. */
runInOwnNamespace();

const pods = new HttpPods();
const open = { method: 'GET', path: '/open/.*' };
before(() => pods.start());
after(() => pods.close());
beforeEach(() => pods.datapath.sayRequests({ every: 0, perSecond: 0 }));

const statuses = async (name: string, path: string) => statusesOf(await pods.say(name, [get(path)]));
/** What has been said of requests since it was asked last. */
const said = () => {
  pods.datapath.drainEvents();
  return pods.events.splice(0).filter(({ http }) => http !== undefined);
};

test('a rule that is to be logged has each request said that it decides, however few are said otherwise', async () => {
  const log = { 'myelin.dev/log': 'who asks' };
  await pods.enforce(policy(asking(open), { annotations: log }));
  said();
  for (const path of ['/open/a', '/closed/b', '/open/c']) await statuses('logged', path);
  assert.deepEqual(
    said().map(({ http, unsaid, verdict }) => [http?.path, http?.status, unsaid, verdict]),
    [
      ['/open/a', 200, 0, 'allow'],
      ['/closed/b', 403, 0, 'deny'],
      ['/open/c', 200, 0, 'allow'],
    ],
  );
  const many = await pods.say('logged', [get('/open/many').repeat(40)], 40);
  assert.equal(statusesOf(many).length, 40);
  await statuses('logged', '/open/last');
  const left = said();
  assert.ok(left.length < 40);
  assert.equal(left.length + left.reduce((sum, { unsaid = 0 }) => sum + unsaid, 0), 41, 'the rest is counted');
  await pods.enforce(policy(asking(open)));
  await statuses('logged', '/open/quiet');
  assert.deepEqual(said(), []);
});

test('what an audited policy would deny of the requests that pass is said by its rule, and passes', async () => {
  pods.datapath.sayRequests({ every: 0, perSecond: 1000 });
  const audited = policy(asking({ method: 'GET', path: '/open/a' }), {
    name: 'audited',
    annotations: { 'myelin.dev/mode': 'audit' },
  });
  const admitting = policy(asking(open, { path: '/also/.*' }));
  await pods.enforce(admitting, audited);
  said();
  for (const path of ['/open/a', '/also/b']) assert.deepEqual(await statuses('audited', path), [200], path);
  assert.deepEqual(said(), [], 'either policy allows it');
  // What an audited policy isolates, and only it: without the other one, the pod is open.
  const strict = {
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name: 'audited', namespace: 'shop', annotations: { 'istio.io/dry-run': 'true' } },
    spec: { action: 'DENY', rules: [{ to: [{ operation: { paths: ['/also/*'] } }] }] },
  };
  await pods.enforce(admitting, strict);
  const counted = () => pods.datapath.metrics().audited.ingress.packets;
  const before = counted();
  for (const path of ['/open/a', '/also/b', '/also/../open/c'])
    assert.deepEqual(await statuses('audited', path), [200]);
  const [one, ...more] = said();
  assert.deepEqual(more, []);
  assert.deepEqual(
    [one?.kind, one?.verdict, one?.http?.path, one?.reason, one?.direction],
    ['audit', 'allow', '/also/b', 'HTTP_DENIED', 'ingress'],
  );
  assert.equal(pods.datapath.policy?.rules.get(one?.rule ?? 0)?.name, 'audited');
  assert.equal(counted() - before, 1);
  assert.deepEqual(await statuses('audited', '/closed'), [403]);
  assert.ok(
    said().every(({ kind }) => kind === 'request'),
    'what is denied as it is is not said to be audited',
  );
});

const others = asking({ method: 'GET', path: '/other/.*' });

test('reset: a request that policy denies since it has changed ends its connection, and is answered on the next', async () => {
  const options = { annotations: { 'myelin.dev/established': 'reset' } };
  await pods.enforce(policy(asking(open), options));
  assert.deepEqual(await statuses('reset', '/open/a'), [200]);
  assert.deepEqual(await statuses('reset', '/closed/a'), [403], 'policy has not changed');
  assert.deepEqual(await statuses('spared', '/open/b'), [200]);
  await pods.enforce(policy(others, options));
  const before = pods.dropped('HTTP_DENIED');
  const heard = await pods.say('reset', [get('/open/a')]);
  assert.deepEqual([heard.text, heard.state], ['', 'reset']);
  assert.ok(pods.dropped('HTTP_DENIED') > before);
  assert.deepEqual(await statuses('anew', '/open/a'), [403]);
  assert.deepEqual(await statuses('spared', '/other/b'), [200]);
  assert.deepEqual(await statuses('spared', '/open/b'), [403], 'it was let through by what denies now');
});

test('keep: a connection that was let in unread stays unread, but no request passes that policy denies where they are read', async () => {
  const options = { annotations: { 'myelin.dev/established': 'keep' } };
  await pods.enforce(policy({}, options));
  assert.deepEqual(await statuses('unread', '/closed/whatever'), [200]);
  await pods.enforce(policy(asking(open), options));
  assert.deepEqual(await statuses('unread', '/closed/whatever'), [200]);
  assert.deepEqual(await statuses('read', '/open/a'), [200]);
  assert.deepEqual(await statuses('read', '/closed/a'), [403]);
  await pods.enforce(policy(others, options));
  assert.deepEqual(await statuses('read', '/open/a'), [403]);
  assert.deepEqual(await statuses('read', '/other/a'), [200]);
  assert.deepEqual(await statuses('unread', '/closed/whatever'), [200]);
  // Without `keep` it is as any that nobody reads.
  await pods.enforce(policy(asking(open)));
  assert.equal((await pods.say('unread', [get('/open/a')])).state, 'reset');
});

test('keep: where no request is allowed any more, connections stay and each request is denied', async () => {
  const options = { annotations: { 'myelin.dev/established': 'keep' } };
  await pods.enforce(policy(asking(open), options));
  assert.deepEqual(await statuses('kept', '/open/a'), [200]);
  const nobody = policy(asking(open), options);
  await pods.enforce({ ...nobody, spec: { endpointSelector: { matchLabels: { app: 'cart' } }, ingress: [{}] } });
  assert.deepEqual(await statuses('kept', '/open/a'), [403]);
  await pods.enforce(policy(asking(open), options));
  assert.deepEqual(await statuses('kept', '/open/a'), [200]);
});
