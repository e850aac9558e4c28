import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Datapath } from '../../src/datapath/datapath.ts';
import { removePinDirectory } from '../../src/kernel/bpffs.ts';
import { findLink, ipBatch } from '../../src/kernel/ip.ts';
import { createNamespace, deleteNamespace, listNamespaces } from '../../src/kernel/netns.ts';
import { parseIp, parseMac } from '../../src/model/address.ts';
import type { PodView } from '../../src/model/endpoint.ts';
import { compile } from '../../src/policy/compile.ts';
import { policyKindOf } from '../../src/policy/kinds.ts';
import { clusterWith } from '../support/cluster.ts';
import { HttpServer, HttpTalker, statusesOf } from '../support/http-talk.ts';
import { runInOwnNamespace } from '../support/namespace.ts';
import { objectDir } from './maps.ts';

/** One node with two pods on real links, without agent or lab: what the oldest kernel is asked too. */
runInOwnNamespace();

const node = 'node-1';
const directory = mkdtempSync(join(tmpdir(), 'myelin-http-'));
const pinDir = `/sys/fs/bpf/myelin-test-http-${process.pid}`;
const names = ['front', 'cart'] as const;
const addressOf = { front: '10.244.1.1', cart: '10.244.1.2' } as const;
const netns = (name: string) => join(directory, name);
const port = 8000;
let datapath: Datapath;
let server: HttpServer;
let talker: HttpTalker;

const pods = new Map(
  names.map((name): [string, PodView] => [
    name,
    {
      namespace: 'shop',
      name,
      uid: name,
      labels: { app: name },
      serviceAccount: 'default',
      node,
      addresses: [parseIp(addressOf[name])],
      namedPorts: [],
      hostNetwork: false,
    },
  ]),
);
const byRequest = { rules: { http: [{ method: 'GET|POST', path: '/open/.*' }] } };

/** Puts a policy in force: what `front` may ask of `cart`, by default whatever it likes. */
async function enforce(asked: object = {}, annotations: Readonly<Record<string, string>> = {}): Promise<void> {
  const object = {
    apiVersion: 'cilium.io/v2',
    kind: 'CiliumNetworkPolicy',
    metadata: { name: 'cart', namespace: 'shop', annotations },
    spec: {
      endpointSelector: { matchLabels: { app: 'cart' } },
      ingress: [
        {
          fromEndpoints: [{ matchLabels: { app: 'front' } }],
          toPorts: [{ ports: [{ port: String(port), protocol: 'TCP' }], ...asked }],
        },
      ],
    },
  };
  const rules = policyKindOf(object)?.parse(object);
  assert.ok(rules?.ok, JSON.stringify(rules));
  await datapath.applyPolicy(compile(clusterWith(rules.policies, { pods }), node, datapath.policy));
}

before(async () => {
  datapath = Datapath.open({ objectDir, pinDir, maxEntries: { ct: 4096, service_flows: 1024 } });
  assert.equal(datapath.httpUnavailable, undefined);
  for (const [i, name] of names.entries()) {
    await createNamespace(netns(name));
    await ipBatch([
      `link add ${name} type veth peer name eth0 address 02:00:00:00:01:0${i} netns ${netns(name)}`,
      `link set ${name} up`,
      `addr add 169.254.1.1/32 dev ${name} scope link`,
      `route add ${addressOf[name]}/32 dev ${name}`,
    ]);
    const link = await findLink(name);
    assert.ok(link !== undefined);
    await ipBatch(
      [
        'link set eth0 up',
        `addr add ${addressOf[name]}/32 dev eth0`,
        'route add 169.254.1.1 dev eth0 scope link',
        'route add default via 169.254.1.1',
        `neigh add 169.254.1.1 dev eth0 lladdr ${link.mac} nud permanent`,
      ],
      { netns: netns(name) },
    );
    datapath.setEndpoint({
      uid: name,
      ifindex: link.ifindex,
      mac: parseMac(`02:00:00:00:01:0${i}`),
      hostMac: parseMac(link.mac),
      addresses: [parseIp(addressOf[name])],
      netns: netns(name),
    });
  }
  await enforce(byRequest);
  const places = {
    command: async (where: unknown, command: readonly string[]) => [
      'nsenter',
      `--net=${netns(String(where))}`,
      ...command,
    ],
  };
  server = await HttpServer.start(places, 'cart', port);
  talker = await HttpTalker.start(places, 'front');
});
after(async () => {
  talker?.close();
  server?.close();
  await datapath?.close();
  for (const path of listNamespaces(directory)) deleteNamespace(path);
  rmSync(directory, { recursive: true, force: true });
  removePinDirectory(pinDir);
});

const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: cart.shop.example\r\n\r\n`;
const post = (path: string, length: number) =>
  `POST ${path} HTTP/1.1\r\nHost: cart.shop.example\r\nContent-Length: ${length}\r\n\r\n${'x'.repeat(length)}`;
const to = { host: addressOf.cart, port };
const say = (name: string, parts: readonly string[], answers = 1) =>
  talker.say({ ...to, parts, name, answers, patience: 20_000 });

/** Waits for a line of the server's. */
async function serverSays(line: string): Promise<void> {
  const end = Date.now() + 20_000;
  for (const seen: string[] = []; !seen.includes(line); await sleep(5)) {
    assert.ok(Date.now() < end, `the server never says “${line}”`);
    seen.push(...server.take());
  }
}

test('requests are decided one by one on a connection that goes on', async () => {
  for (const path of ['/open/a', '/closed/a/bit', '/open/../closed/too', '/open/b'])
    assert.deepEqual(statusesOf(await say('one', [get(path)])), [path.includes('closed') ? 403 : 200], path);
  assert.deepEqual(server.take(), ['GET /open/a 0', 'GET /open/b 0']);
});

test('requests in pieces, and many at once', async () => {
  assert.deepEqual(statusesOf(await say('pieces', [...get('/open/p')])), [200]);
  assert.deepEqual(statusesOf(await say('pieces', [get('/open/q').repeat(4)], 4)), [200, 200, 200, 200]);
  assert.deepEqual(statusesOf(await say('pieces', [get('/open/r')])), [200]);
  server.take();
});

test('denied requests in one packet are answered each, as is one behind an answer that is written and still on its way', async () => {
  const closed = ['/closed/a', '/closed/a/longer/one', '/closed/b'];
  const heard = await say('denied', [closed.map(get).join('')], 3);
  assert.deepEqual(statusesOf(heard), [403, 403, 403], JSON.stringify(heard));
  assert.equal(heard.text.length, closed.map(get).join('').length);
  assert.deepEqual(statusesOf(await say('denied', [get('/open/after')])), [200]);
  server.take();

  const size = 150_000;
  await talker.say({ ...to, parts: [get(`/open/big/${size}`)], name: 'behind', deaf: true });
  await serverSays('written');
  const behind = await say('behind', [get('/closed/behind/it'), get('/closed/and/again')], 3);
  assert.deepEqual(statusesOf(behind), [200, 403, 403], JSON.stringify({ ...behind, text: behind.text.slice(-300) }));
  assert.equal(behind.text.indexOf('HTTP/1.1 403') - behind.text.indexOf('\r\n\r\n') - 4, size);
  assert.deepEqual(statusesOf(await say('behind', [get('/open/after')])), [200]);
  assert.deepEqual(server.take(), ['GET /open/after 0']);
});

test('what would be answered before, or into, another answer is not: the connection ends', async () => {
  const behind = await say('mixed', [get('/open/a') + get('/closed/b')], 2);
  assert.equal(behind.state, 'reset', JSON.stringify(behind));
  assert.ok(!behind.text.includes('403'));
});

test('a long body does not keep what comes behind it', async () => {
  for (const length of [10_000, 300_000])
    for (const path of ['/open/up', '/closed/up', '/open/up'])
      assert.deepEqual(statusesOf(await say('long', [post(path, length)])), [path === '/open/up' ? 200 : 403]);
  assert.deepEqual(statusesOf(await say('long', [get('/open/after')])), [200]);
  assert.deepEqual(server.take().length, 5);
});

test('what is broken is reset', async () => {
  const broken = 'POST /open/up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcdX\r\n';
  assert.equal((await say('broken', [broken])).state, 'reset');
  assert.deepEqual(statusesOf(await say('tls', [`\x16\x03\x01\x02\x00${'x'.repeat(60)}`])), [400]);
});

const upgrade = (path: string) => get(path).replace('\r\n\r\n', '\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n');

test('what is upgraded passes as it is while policy allows the connection whatever it carries, and ends when it does not', async () => {
  const speak = (text: string) => talker.say({ ...to, parts: [text], name: 'upgraded', until: text, patience: 20_000 });
  assert.deepEqual(statusesOf(await say('upgraded', [upgrade('/open/ws')])), [403]);
  assert.deepEqual(statusesOf(await say('upgraded', [get('/open/ws')])), [200]);
  assert.deepEqual(server.take(), ['GET /open/ws 0']);
  await enforce();
  const heard = await say('upgraded', [upgrade('/closed/ws')]);
  assert.deepEqual(statusesOf(heard), [101]);
  assert.deepEqual(server.take(), ['upgraded']);
  // Bytes of any kind, also those that would be a request, or none.
  for (const text of ['\x00\xff\r\n\r\n', get('/closed/as/bytes'), `${'y'.repeat(100_000)}.`])
    assert.equal((await speak(text)).text, text);
  await enforce(byRequest);
  const after = await speak('over');
  assert.deepEqual([after.text, after.state], ['', 'reset']);
  await serverSays('upgraded and reset');
});

test('a connection that was open before its requests were asked for is reset with its next data', async () => {
  const unread = () =>
    datapath.metrics().drops.reduce((sum, { reason, packets }) => sum + (reason === 'HTTP_UNREAD' ? packets : 0), 0);
  await enforce();
  assert.deepEqual(statusesOf(await say('early', [get('/closed/to/nobody')])), [200]);
  const before = unread();
  await enforce(byRequest);
  server.take();
  const heard = await say('early', [get('/open/but/unread')]);
  assert.deepEqual([heard.text, heard.state], ['', 'reset']);
  assert.ok(unread() > before);
  assert.deepEqual(server.take(), []);
  assert.deepEqual(statusesOf(await say('late', [get('/open/and/read')])), [200]);
});
