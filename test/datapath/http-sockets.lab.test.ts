import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { statusesOf } from '../support/http-talk.ts';
import { runInOwnNamespace } from '../support/namespace.ts';
import { asking, get, HttpPods, policy } from './http-pods.ts';

/** Requests on the sockets of real pods, without agent or lab: what the oldest kernel is asked too. */
runInOwnNamespace();

const pods = new HttpPods();
const byRequest = policy(asking({ method: 'GET|POST', path: '/open/.*' }));
before(async () => {
  await pods.start();
  await pods.enforce(byRequest);
});
after(() => pods.close());

const post = (path: string, length: number) =>
  `POST ${path} HTTP/1.1\r\nHost: cart.shop.example\r\nContent-Length: ${length}\r\n\r\n${'x'.repeat(length)}`;

test('requests are decided one by one on a connection that goes on', async () => {
  for (const path of ['/open/a', '/closed/a/bit', '/open/../closed/too', '/open/b'])
    assert.deepEqual(statusesOf(await pods.say('one', [get(path)])), [path.includes('closed') ? 403 : 200], path);
  assert.deepEqual(pods.server.take(), ['GET /open/a 0', 'GET /open/b 0']);
});

test('requests in pieces, and many at once', async () => {
  assert.deepEqual(statusesOf(await pods.say('pieces', [...get('/open/p')])), [200]);
  assert.deepEqual(statusesOf(await pods.say('pieces', [get('/open/q').repeat(4)], 4)), [200, 200, 200, 200]);
  assert.deepEqual(statusesOf(await pods.say('pieces', [get('/open/r')])), [200]);
  pods.server.take();
});

test('denied requests in one packet are answered each, as is one behind an answer that is written and still on its way', async () => {
  const closed = ['/closed/a', '/closed/a/longer/one', '/closed/b'];
  const heard = await pods.say('denied', [closed.map(get).join('')], 3);
  assert.deepEqual(statusesOf(heard), [403, 403, 403], JSON.stringify(heard));
  assert.equal(heard.text.length, closed.map(get).join('').length);
  assert.deepEqual(statusesOf(await pods.say('denied', [get('/open/after')])), [200]);
  pods.server.take();

  const size = 150_000;
  await pods.talk({ parts: [get(`/open/big/${size}`)], name: 'behind', deaf: true });
  await pods.serverSays('written');
  const behind = await pods.say('behind', [get('/closed/behind/it'), get('/closed/and/again')], 3);
  assert.deepEqual(statusesOf(behind), [200, 403, 403], JSON.stringify({ ...behind, text: behind.text.slice(-300) }));
  assert.equal(behind.text.indexOf('HTTP/1.1 403') - behind.text.indexOf('\r\n\r\n') - 4, size);
  assert.deepEqual(statusesOf(await pods.say('behind', [get('/open/after')])), [200]);
  assert.deepEqual(pods.server.take(), ['GET /open/after 0']);
});

test('what would be answered before, or into, another answer is not: the connection ends', async () => {
  const behind = await pods.say('mixed', [get('/open/a') + get('/closed/b')], 2);
  assert.equal(behind.state, 'reset', JSON.stringify(behind));
  assert.ok(!behind.text.includes('403'));
  assert.deepEqual(pods.datapath.proxyClients(), [], 'nobody said that there may be a proxy');
  pods.datapath.setConfig({ proxyLearn: true });
  const again = await pods.say('mixed again', [get('/closed/b') + get('/open/a')], 2);
  assert.equal(again.state, 'reset', JSON.stringify(again));
  assert.deepEqual(
    pods.datapath.proxyClients().map(({ port, remote }) => [port, remote]),
    [[8000, '10.244.1.1']],
  );
  // While there is none, the kernel goes on.
  assert.deepEqual(statusesOf(await pods.say('mixed anew', [get('/closed/b')])), [403]);
  pods.datapath.setConfig({ proxyLearn: false });
});

test('a long body does not keep what comes behind it', async () => {
  for (const length of [10_000, 300_000])
    for (const path of ['/open/up', '/closed/up', '/open/up'])
      assert.deepEqual(statusesOf(await pods.say('long', [post(path, length)])), [path === '/open/up' ? 200 : 403]);
  assert.deepEqual(statusesOf(await pods.say('long', [get('/open/after')])), [200]);
  assert.deepEqual(pods.server.take().length, 5);
});

test('what is broken is reset', async () => {
  const broken = 'POST /open/up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcdX\r\n';
  assert.equal((await pods.say('broken', [broken])).state, 'reset');
  assert.deepEqual(statusesOf(await pods.say('tls', [`\x16\x03\x01\x02\x00${'x'.repeat(60)}`])), [400]);
});

const upgrade = (path: string) => get(path).replace('\r\n\r\n', '\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n');

test('what is upgraded passes as it is while policy allows the connection whatever it carries, and ends when it does not', async () => {
  const speak = (text: string) => pods.talk({ parts: [text], name: 'upgraded', until: text });
  assert.deepEqual(statusesOf(await pods.say('upgraded', [upgrade('/open/ws')])), [403]);
  assert.deepEqual(statusesOf(await pods.say('upgraded', [get('/open/ws')])), [200]);
  assert.deepEqual(pods.server.take(), ['GET /open/ws 0']);
  await pods.enforce(policy());
  const heard = await pods.say('upgraded', [upgrade('/closed/ws')]);
  assert.deepEqual(statusesOf(heard), [101]);
  assert.deepEqual(pods.server.take(), ['upgraded']);
  // Bytes of any kind, also those that would be a request, or none.
  for (const text of ['\x00\xff\r\n\r\n', get('/closed/as/bytes'), `${'y'.repeat(100_000)}.`])
    assert.equal((await speak(text)).text, text);
  await pods.enforce(byRequest);
  const after = await speak('over');
  assert.deepEqual([after.text, after.state], ['', 'reset']);
  await pods.serverSays('upgraded and reset');
});

test('a connection that was open before its requests were asked for is reset with its next data', async () => {
  await pods.enforce(policy());
  assert.deepEqual(statusesOf(await pods.say('early', [get('/closed/to/nobody')])), [200]);
  const before = pods.dropped('HTTP_UNREAD');
  await pods.enforce(byRequest);
  pods.server.take();
  const heard = await pods.say('early', [get('/open/but/unread')]);
  assert.deepEqual([heard.text, heard.state], ['', 'reset']);
  assert.ok(pods.dropped('HTTP_UNREAD') > before);
  assert.deepEqual(pods.server.take(), []);
  assert.deepEqual(statusesOf(await pods.say('late', [get('/open/and/read')])), [200]);
});
