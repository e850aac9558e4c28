import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { connect as connectTcp } from 'node:net';
import { type TestContext, test } from 'node:test';
import { connect } from 'node:tls';
import type { Worker } from 'node:worker_threads';
import { toPem } from '../../src/identity/certificate.ts';
import { endpointServerName } from '../../src/identity/names.ts';
import { Cancel } from '../../src/tunnel/handshake/cancel.ts';
import { HandshakeError } from '../../src/tunnel/handshake/error.ts';
import { applicationProtocol, defaultGroups, tlsParameters } from '../../src/tunnel/handshake/tls-parameters.ts';
import type { RemotePod } from '../../src/tunnel/peers.ts';
import { Slots } from '../../src/tunnel/slots.ts';
import { trustDomain } from '../identity/fixtures.ts';
import { addressesOf, between, type ManagerOver, TestCluster, type TestNode, until } from './fixtures.ts';

interface Two {
  readonly a: TestNode;
  readonly b: TestNode;
  readonly webs: RemotePod[];
  readonly dbs: RemotePod[];
}

async function two(t: TestContext, pods: number, over: ManagerOver = {}): Promise<Two> {
  const cluster = await TestCluster.make(t);
  const [a, b] = [await cluster.node(over), await cluster.node(over)];
  const [webs, dbs]: [RemotePod[], RemotePod[]] = [[], []];
  for (let i = 0; i < pods; i++) {
    webs.push(await cluster.pod(a, `web-${i}`, { addresses: addressesOf(100 + i) }));
    dbs.push(await cluster.pod(b, `db-${i}`, { addresses: addressesOf(200 + i) }));
  }
  return { a, b, webs, dbs };
}

const openFiles = () => readdirSync('/proc/self/fd').length;
const up = async (node: TestNode) => (await node.manager.list()).filter(({ state }) => state === 'up').length;

test('few handshakes begin no thread; a crowd of them does, and the threads end when they are idle', async (t) => {
  const { a, b, webs, dbs } = await two(t, 8, { threads: { idleMs: 100 } });
  const [web, db] = [webs[0], dbs[0]];
  assert.ok(web && db);
  a.driver.send(between(web, db));
  await until('one', async () => (await up(a)) === 1 && (await up(b)) === 1);
  assert.equal(a.manager.statistics().threadsBegun + b.manager.statistics().threadsBegun, 0);
  for (const from of webs) for (const to of dbs) a.driver.send(between(from, to));
  await until('all', async () => (await up(a)) === 64 && (await up(b)) === 64);
  assert.ok(a.manager.statistics().threadsBegun > 0);
  for (const node of [a, b]) {
    const { refused, refusedByPeer } = node.manager.statistics();
    assert.deepEqual({ refused, refusedByPeer }, { refused: {}, refusedByPeer: {} });
  }
  for (const from of webs) for (const to of dbs) assert.equal(a.driver.send(between(from, to)), 'delivered');
  await until('ended', () => a.manager.statistics().threads + b.manager.statistics().threads === 0);
});

/** A client that shows the pod's certificate and does as the test says. */
function client({ a, b, webs, dbs }: Two, over: object = {}) {
  const svid = a.svids.get(webs[0]?.pod.uid ?? '');
  assert.ok(svid);
  const socket = connect({
    host: b.address,
    port: b.manager.port,
    ...tlsParameters(defaultGroups),
    servername: endpointServerName(dbs[0]?.pod.uid ?? '', trustDomain),
    ALPNProtocols: [applicationProtocol],
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
    cert: toPem(svid.chain),
    key: svid.privateKey.export({ type: 'pkcs8', format: 'pem' }),
    ...over,
  });
  socket.on('error', () => {});
  socket.resume();
  return new Promise<void>((resolve) => socket.once('close', () => resolve()));
}

test('what is refused on a thread is refused for the same reasons, and leaves no descriptor open', async (t) => {
  const at = await two(t, 1, { threads: { mostHere: 0 }, timeoutMs: 700 });
  const { a, b, webs, dbs } = at;
  const [web, db] = [webs[0], dbs[0]];
  assert.ok(web && db);
  a.driver.send(between(web, db));
  await until('up', async () => (await up(a)) === 1 && (await up(b)) === 1);
  await until('quiet', () => b.manager.statistics().connections === 0);
  const before = openFiles();
  // On a slow machine the pair itself may have needed more than one attempt.
  const earlier: Record<string, number> = b.manager.statistics().refused;
  await client(at, { servername: `nobody.${trustDomain}` });
  await client(at, { ALPNProtocols: ['h2'] });
  await client(at, { ecdhCurve: 'P-256' });
  await client(at, { cert: undefined, key: undefined });
  // Falls silent after TLS, and before.
  await client(at);
  const mute = connectTcp(b.manager.port, b.address);
  await new Promise<void>((resolve) => mute.once('close', () => resolve()).resume());
  for (let i = 0; i < 30; i++) {
    const garbage = connectTcp(b.manager.port, b.address);
    garbage.on('error', () => {});
    garbage.end('GET / HTTP/1.1\r\n\r\n');
    await new Promise<void>((resolve) => garbage.once('close', () => resolve()).resume());
  }
  await until('all gone', () => b.manager.statistics().connections === 0);
  const { refused, tlsErrors } = b.manager.statistics();
  const since = Object.entries(refused).map(([code, count]) => [code, count - (earlier[code] ?? 0)]);
  assert.deepEqual(Object.fromEntries(since.filter(([, count]) => count !== 0)), {
    'unknown-endpoint': 1,
    alpn: 1,
    tls: 31,
    missing: 1,
    timeout: 2,
  });
  assert.equal(
    Object.values(tlsErrors).reduce((sum, count) => sum + count, 0),
    32,
    JSON.stringify(tlsErrors),
  );
  await until('no descriptor more', () => openFiles() <= before);
});

test('a thread that dies takes its handshakes with it, and nothing else: they are tried again', async (t) => {
  const { a, b, webs, dbs } = await two(t, 6, {
    threads: { mostHere: 0 },
    timing: { firstRetryMs: 5, longestRetryMs: 50 },
  });
  const threads: Worker[] = [];
  const begun = (thread: Worker) => void threads.push(thread);
  process.on('worker', begun);
  t.after(() => process.off('worker', begun));
  for (const from of webs) for (const to of dbs) a.driver.send(between(from, to));
  await until('begun', () => a.manager.statistics().threads > 0 && b.manager.statistics().answered > 0);
  assert.ok(threads.length >= 2);
  await Promise.all(threads.splice(0).map((thread) => thread.terminate()));
  await until('all', async () => (await up(a)) === 36 && (await up(b)) === 36, 20_000);
  for (const from of webs) for (const to of dbs) assert.equal(a.driver.send(between(from, to)), 'delivered');
});

test('turns go round: one who asks for many places does not keep another waiting', async () => {
  const slots = new Slots(1);
  const order: string[] = [];
  const leave = await slots.take(new Cancel(), 'many');
  const asked = ['many', 'many', 'many', 'one', 'other', 'many'].map(async (who) => {
    const go = await slots.take(new Cancel(), who);
    order.push(who);
    go();
  });
  const [late, early] = [new Cancel(), new Cancel()];
  const given = assert.rejects(async () => await slots.take(late, 'late'), { code: 'aborted' });
  assert.equal(slots.waiting, 7);
  // Who gives up gets no place, and keeps nobody from his.
  late.cancel(new HandshakeError('aborted'));
  early.cancel(new HandshakeError('aborted'));
  assert.throws(() => slots.take(early, 'early'), { code: 'aborted' });
  await given;
  assert.equal(slots.waiting, 6);
  leave();
  await Promise.all(asked);
  assert.deepEqual(order, ['many', 'one', 'other', 'many', 'many', 'many']);
  assert.equal(slots.waiting, 0);
});
