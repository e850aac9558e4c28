import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import type { RemotePod } from '../../src/tunnel/peers.ts';
import {
  addressesOf,
  between,
  type ManagerOver,
  remove,
  spiffe,
  TestCluster,
  type TestNode,
  until,
} from './fixtures.ts';

interface Two {
  cluster: TestCluster;
  a: TestNode;
  b: TestNode;
  web: RemotePod;
  db: RemotePod;
}

async function two(t: TestContext, over: ManagerOver = {}): Promise<Two> {
  const cluster = await TestCluster.make(t);
  const a = await cluster.node(over);
  const b = await cluster.node(over);
  const web = await cluster.pod(a, 'web', { addresses: addressesOf(1) });
  const db = await cluster.pod(b, 'db', { addresses: addressesOf(2) });
  return { cluster, a, b, web, db };
}

const isUp = (node: TestNode) => async () => (await node.manager.list()).some(({ state }) => state === 'up');
const only = async (node: TestNode) => {
  const rows = await node.manager.list();
  assert.equal(rows.length, 1);
  return rows[0] ?? assert.fail();
};

test('the first packet waits for the handshake and arrives; both directions and both families have keys then', async (t) => {
  const { a, b, web, db } = await two(t);
  assert.equal(a.driver.send(between(web, db)), 'held');
  await until('the tunnel', async () => (await isUp(a)()) && (await isUp(b)()));
  await until('the held packet', () => a.driver.fates.get('delivered') === 1);
  for (const family of [4, 6] as const) {
    assert.equal(a.driver.send(between(web, db, family)), 'delivered');
    assert.equal(b.driver.send(between(db, web, family)), 'delivered');
  }
  const [here, there] = [await only(a), await only(b)];
  assert.equal(here.localSpiffeId, spiffe('web'));
  assert.equal(here.remoteSpiffeId, spiffe('db'));
  assert.equal(there.remoteSpiffeId, spiffe('web'));
  assert.equal(here.remoteNode, b.name);
  assert.equal(here.spiIn, there.spiOut);
  assert.equal(here.spiOut, there.spiIn);
  for (const row of [here, there]) {
    assert.equal(row.group, 'X25519MLKEM768');
    assert.equal(row.handshakeCipher, 'TLS_AES_256_GCM_SHA384');
    assert.equal(row.cipher, 'AES-256-GCM');
    assert.ok(row.packetsIn >= 2 && row.bytesIn >= 200);
  }
  // What the datapath's table says is what the certificates said, on both sides.
  for (const family of [4, 6] as const) {
    const { local, remote } = between(web, db, family);
    assert.equal(a.proofs.get(`${local} ${remote}`)?.remoteUid, db.pod.uid);
    assert.equal(b.proofs.get(`${remote} ${local}`)?.remoteUid, web.pod.uid);
  }
  assert.deepEqual(a.manager.statistics().opened, 1);
  assert.deepEqual(b.manager.statistics().answered, 1);
});

test('the receive side is in place, and proven, before anything is sent under the new key', async (t) => {
  const { a, b, web, db } = await two(t);
  // Every request of the initiator's driver takes a while: were the responder to send too soon, packets would be lost.
  a.driver.delay = () => wait(30);
  const fates: string[] = [];
  b.driver.send(between(db, web));
  a.driver.send(between(web, db));
  while (!((await isUp(a)()) && (await isUp(b)()))) {
    for (const fate of [b.driver.send(between(db, web)), a.driver.send(between(web, db))]) fates.push(fate);
    await wait(1);
  }
  assert.deepEqual(
    [...new Set(fates)].filter((fate) => fate !== 'held' && fate !== 'delivered'),
    [],
  );
  for (const node of [a, b]) {
    assert.equal(node.driver.fates.get('unknown-spi'), undefined);
    const install = node.driver.log.findIndex((line) => line.startsWith('install in'));
    const send = node.driver.log.findIndex((line) => line.startsWith('install out'));
    assert.ok(install >= 0 && install < send, node.driver.log.join(', '));
  }
});

test('both beginning at once leaves one pair of keys, whatever the timing', async (t) => {
  for (let round = 0; round < 12; round++) {
    const { cluster, a, b, web, db } = await two(t);
    a.driver.send(between(web, db));
    if (round > 0) await wait(round % 6);
    b.driver.send(between(db, web));
    await until('both up', async () => (await isUp(a)()) && (await isUp(b)()));
    await until('nothing held', () => a.driver.waiting(between(web, db)) + b.driver.waiting(between(db, web)) === 0);
    await wait(20);
    for (const node of [a, b]) {
      const sas = await node.driver.list();
      assert.deepEqual(sas.map(({ direction }) => direction).sort(), ['in', 'out'], `round ${round}`);
    }
    const [here, there] = [await only(a), await only(b)];
    assert.equal(here.spiIn, there.spiOut);
    assert.equal(here.spiOut, there.spiIn);
    assert.equal(a.driver.send(between(web, db)), 'delivered');
    assert.equal(b.driver.send(between(db, web)), 'delivered');
    for (const node of cluster.nodes) await node.manager.close();
  }
});

test('a key is replaced before it ends, without a packet lost, and the old one is gone after its grace', async (t) => {
  const { a, b, web, db } = await two(t, { timing: { graceMs: 200 } });
  a.driver.send(between(web, db));
  await until('the tunnel', async () => (await isUp(a)()) && (await isUp(b)()));
  const first = await only(a);
  const lost: string[] = [];
  let packets = 0;
  const sending = setInterval(() => {
    for (const fate of [a.driver.send(between(web, db)), b.driver.send(between(db, web, 6))]) {
      packets++;
      if (fate !== 'delivered') lost.push(fate);
    }
  }, 1);
  t.after(() => clearInterval(sending));
  for (let rekeys = 1; rekeys <= 5; rekeys++) {
    const side = rekeys % 2 === 0 ? b : a;
    const pair = side === a ? between(web, db) : between(db, web);
    side.driver.reachLimit(pair, 'soft');
    await until(`rekey ${rekeys}`, async () => (await only(a)).rekeys === rekeys && (await only(b)).rekeys === rekeys);
  }
  await until(
    'old keys gone',
    async () => (await a.driver.list()).length === 2 && (await b.driver.list()).length === 2,
  );
  clearInterval(sending);
  assert.deepEqual(lost, []);
  assert.ok(packets > 50, `only ${packets} packets`);
  const last = await only(a);
  assert.notEqual(last.spiIn, first.spiIn);
  const { local, remote } = between(web, db);
  assert.equal(a.proofs.get(`${local} ${remote}`)?.spi, last.spiIn);
  assert.ok(!a.history.some((line) => line.startsWith('forget')), 'a rekey never forgets');
});

test('time alone replaces a key that is used, and lets one end that is not', async (t) => {
  const { a, b, web, db } = await two(t, { lifetimeSeconds: 1, timing: { graceMs: 150 } });
  a.driver.send(between(web, db));
  await until('the tunnel', async () => (await isUp(a)()) && (await isUp(b)()));
  const lost: string[] = [];
  const sending = setInterval(() => {
    const fate = a.driver.send(between(web, db));
    if (fate !== 'delivered') lost.push(fate);
  }, 5);
  t.after(() => clearInterval(sending));
  await until('two rekeys', async () => (await only(a)).rekeys >= 2);
  clearInterval(sending);
  assert.deepEqual(lost, []);
  await until('the end', async () => (await a.driver.list()).length === 0 && (await b.driver.list()).length === 0);
  assert.equal(a.proofs.size + b.proofs.size, 0);
  a.driver.send(between(web, db));
  await until('the tunnel again', isUp(a));
});

test('a hard limit is a rekey in which packets wait', async (t) => {
  const { a, web, db } = await two(t);
  a.driver.send(between(web, db));
  await until('the tunnel', isUp(a));
  a.driver.reachLimit(between(web, db), 'hard');
  assert.equal(a.driver.send(between(web, db)), 'held');
  await until('delivery', () => a.driver.waiting(between(web, db)) === 0);
  assert.equal(a.driver.send(between(web, db)), 'delivered');
});

test('when a pod goes, every key of it goes, on its node and, once that is known, on its peers’', async (t) => {
  const { a, b, web, db } = await two(t);
  a.driver.send(between(web, db));
  await until('the tunnel', async () => (await isUp(a)()) && (await isUp(b)()));
  await remove(b, db);
  assert.deepEqual(await b.driver.list(), []);
  assert.equal(b.proofs.size, 0);
  // Nobody can be reached by its name there any more.
  a.view.forget(db);
  await a.manager.reconcile();
  assert.deepEqual(await a.driver.list(), []);
  assert.equal(a.proofs.size, 0);
  assert.deepEqual(await a.manager.list(), []);
  // Packets to nobody are let go at once.
  a.driver.send(between(web, db));
  await until('failure', () => a.driver.failed === 1);
});

test('an address that has another pod now: neither gets the other’s tunnel, however stale the peer’s cache is', async (t) => {
  const { cluster, a, b, web, db } = await two(t);
  a.driver.send(between(web, db));
  await until('the tunnel', async () => (await isUp(a)()) && (await isUp(b)()));
  const before = b.driver.secrets();
  const staleView = [...a.view.pods];
  await remove(b, db);
  const thief = await cluster.pod(b, 'thief', { addresses: db.addresses });
  for (const [address, pod] of staleView) a.view.pods.set(address, pod);
  assert.deepEqual(
    [...b.driver.secrets().keys()].filter((key) => before.has(key)),
    [],
  );
  // The thief cannot open a tunnel to web: web's node believes that db is there.
  b.driver.send(between(thief, web));
  await until('refusal', () => (a.manager.statistics().refused['wrong-uid'] ?? 0) > 0);
  assert.equal(b.driver.send(between(thief, web)), 'held');
  // Nor does web's old tunnel reach it.
  const fate = a.driver.send(between(web, db));
  assert.equal(fate, 'unknown-spi');
  // Nor can web's node open a new one: db is not there.
  a.driver.crash();
  a.driver.send(between(web, db));
  await until('no db', async () => (await a.manager.list()).some(({ lastError }) => lastError?.includes('hung up')));
  assert.equal([...a.proofs.values()].length, 0);
  // Once web's node knows, the thief gets a tunnel of its own, as itself.
  a.view.learn(thief);
  await a.manager.reconcile();
  b.driver.send(between(thief, web));
  await until('its own tunnel', async () => (await isUp(a)()) && b.driver.waiting(between(thief, web)) === 0);
  const { local, remote } = between(web, thief);
  assert.equal(a.proofs.get(`${local} ${remote}`)?.remoteUid, thief.pod.uid);
});

test('a new pod at an address takes the old one’s tunnels down before its own come up, without being told to', async (t) => {
  const { cluster, a, b, web, db } = await two(t);
  a.driver.send(between(web, db));
  await until('the tunnel', async () => (await isUp(a)()) && (await isUp(b)()));
  const old = (await only(a)).spiIn;
  await remove(b, db);
  const next = await cluster.pod(b, 'next', { addresses: db.addresses });
  // No reconcile(): the handshake alone finds the old tunnel in its way.
  b.driver.send(between(next, web));
  await until('its tunnel, alone', async () => {
    const [row, ...others] = await a.manager.list();
    return row?.remote.uid === next.pod.uid && row.state === 'up' && others.length === 0;
  });
  const gone = a.driver.log.indexOf(`remove in ${old}`);
  const come = a.driver.log.lastIndexOf(a.driver.log.filter((line) => line.startsWith('install in')).at(-1) ?? '');
  assert.ok(gone >= 0 && gone < come, a.driver.log.join(', '));
  assert.ok(a.history.indexOf(`forget ${old}`) < a.history.findIndex((line) => line.endsWith(next.pod.uid)));
});

test('whom policy lets talk to nobody begins nothing; whoever asks such a pod is answered, and judged packet by packet', async (t) => {
  const { a, b, web, db } = await two(t, {
    whyNot: (local, remote) =>
      local.pod.name === 'db' && remote.pod.name === 'web' ? 'db talks to nobody' : undefined,
  });
  b.driver.send(between(db, web));
  await until('let go', () => b.driver.failed === 1);
  assert.equal(a.manager.statistics().answered, 0);
  assert.equal((await only(b)).lastErrorCode, 'policy');
  assert.deepEqual(await b.driver.list(), []);
  a.driver.send(between(web, db));
  await until('delivered', () => a.driver.fates.get('delivered') === 1);
});

test('who policy refused may ask again as soon as policy changes, however often it was refused before', async (t) => {
  let closed = true;
  const { a, b, web, db } = await two(t, {
    whyNot: () => (closed ? 'nobody talks' : undefined),
    // Nobody is going to wait for this.
    timing: { firstRetryMs: 3_600_000, longestRetryMs: 3_600_000 },
  });
  a.driver.send(between(web, db));
  await until('let go', () => a.driver.failed === 1);
  assert.equal((await only(a)).lastErrorCode, 'policy');
  a.driver.send(between(web, db));
  await until('noticed', () => a.driver.waiting(between(web, db)) === 1);
  a.manager.policyChanged();
  await until('let go again', () => a.driver.failed === 2);
  a.driver.send(between(web, db));
  closed = false;
  a.manager.policyChanged();
  await until('delivered', () => a.driver.fates.get('delivered') === 1);
  // What is up stays up: each packet is the datapath's to judge, and a renewal is not refused for what may change again.
  closed = true;
  await until('up', async () => (await only(b)).state === 'up' && (await only(a)).state === 'up');
  a.driver.reachLimit(between(web, db), 'soft');
  await until('renewed', async () => (await only(a)).rekeys === 1);
});

test('a peer that cannot be reached is tried again, and packets wait for a while only', async (t) => {
  const { a, b, web, db } = await two(t, { timing: { firstRetryMs: 5, longestRetryMs: 40, holdAttempts: 4 } });
  await b.manager.close();
  a.driver.send(between(web, db));
  await until('let go', () => a.driver.failed === 1);
  const row = await only(a);
  assert.equal(row.lastErrorCode, 'unreachable');
  assert.ok((a.manager.statistics().refused.unreachable ?? 0) >= 4);
  await b.restart();
  const reachable = { ...db, node: b.peer };
  a.view.learn(reachable);
  await a.manager.reconcile();
  a.driver.send(between(web, db));
  await until('the tunnel', isUp(a));
  assert.equal((await only(a)).lastError, undefined);
});

test('a driver that refuses keys leaves nothing behind on either side', async (t) => {
  for (const [direction, side] of [
    ['in', 'a'],
    ['out', 'a'],
    ['in', 'b'],
    ['out', 'b'],
  ] as const) {
    const { cluster, a, b, web, db } = await two(t, { timing: { graceMs: 100 } });
    const faulty = side === 'a' ? a : b;
    let refusals = 2;
    faulty.driver.refuse = (sa) => (sa.direction === direction && refusals-- > 0 ? new Error('full') : undefined);
    a.driver.send(between(web, db));
    await until('the tunnel', async () => (await isUp(a)()) && (await isUp(b)()) && refusals <= 0);
    await until(
      'two SAs each',
      async () => (await a.driver.list()).length === 2 && (await b.driver.list()).length === 2,
    );
    assert.equal(a.driver.send(between(web, db)), 'delivered', `${direction} ${side}`);
    assert.equal(b.driver.send(between(db, web)), 'delivered', `${direction} ${side}`);
    const [here, there] = [await only(a), await only(b)];
    assert.equal(here.spiIn, there.spiOut);
    assert.equal(a.proofs.get(`${between(web, db).local} ${between(web, db).remote}`)?.spi, here.spiIn);
    for (const node of cluster.nodes) await node.manager.close();
  }
});

test('an agent that is started anew takes its tunnels over without touching them', async (t) => {
  const { a, b, web, db } = await two(t);
  a.driver.send(between(web, db));
  await until('the tunnel', async () => (await isUp(a)()) && (await isUp(b)()));
  b.driver.reachLimit(between(db, web), 'soft');
  await until('a rekey', async () => (await only(a)).rekeys === 1 && (await only(b)).rekeys === 1);
  const [before, row, secrets] = [a.driver.log.length, await only(a), a.driver.secrets()];
  a.proofs.clear();
  await a.restart(() => assert.equal(a.driver.send(between(web, db)), 'delivered'));
  assert.equal(a.driver.log.length, before, 'the driver was asked to change something');
  assert.deepEqual(a.driver.secrets(), secrets);
  const again = await only(a);
  for (const key of ['spiIn', 'spiOut', 'remoteSpiffeId', 'remoteNode', 'group', 'establishedAt', 'expiresAt'] as const)
    assert.equal(again[key], row[key], key);
  assert.equal(again.state, 'up');
  assert.equal(a.proofs.size, 2, 'the datapath is told again');
  assert.equal([...a.proofs.values()][0]?.spi, row.spiIn);
  assert.equal(a.manager.statistics().opened, 0);
  // And it goes on: renews, and cleans up after the pods.
  a.driver.reachLimit(between(web, db), 'soft');
  await until('a rekey', async () => (await only(a)).spiIn !== row.spiIn && (await isUp(a)()));
  assert.equal(b.driver.send(between(db, web)), 'delivered');
});

test('what belongs to pods that have gone while no agent ran is removed at the start', async (t) => {
  const { a, b, web, db } = await two(t);
  a.driver.send(between(web, db));
  await until('the tunnel', async () => (await isUp(a)()) && (await isUp(b)()));
  await a.restart(() => a.locals.splice(0));
  assert.deepEqual(await a.driver.list(), []);
  assert.equal(a.proofs.size, 2, 'nobody is told of what this agent never knew');
});

test('after an engine’s crash both directions come back, and the other node is told', async (t) => {
  const { a, b, web, db } = await two(t);
  a.driver.send(between(web, db));
  await until('the tunnel', async () => (await isUp(a)()) && (await isUp(b)()));
  const old = await only(a);
  a.driver.crash();
  await until('new keys', async () => (await only(a)).spiIn !== old.spiIn && (await isUp(a)()) && (await isUp(b)()));
  assert.equal(a.driver.send(between(web, db)), 'delivered');
  assert.equal(b.driver.send(between(db, web)), 'delivered');
});

test('a node that lost a key without knowing is found out by the packets, and says so as itself', async (t) => {
  const { a, b, web, db } = await two(t);
  a.driver.send(between(web, db));
  await until('the tunnel', async () => (await isUp(a)()) && (await isUp(b)()));
  const old = await only(a);
  await b.driver.remove({ direction: 'in', spi: old.spiOut ?? 0, peer: { address: a.address, port: 4500 } });
  assert.equal(a.driver.send(between(web, db)), 'unknown-spi');
  await until('new keys', async () => (await only(a)).spiOut !== old.spiOut && (await isUp(a)()));
  assert.equal(a.driver.send(between(web, db)), 'delivered');
  assert.ok((await only(a)).rekeys >= 1);
});

test('a notice of lost keys moves only the tunnels to the node that sends it', async (t) => {
  const { cluster, a, b, web, db } = await two(t);
  const c = await cluster.node();
  a.driver.send(between(web, db));
  await until('the tunnel', async () => (await isUp(a)()) && (await isUp(b)()));
  const row = await only(a);
  // c claims not to know the SPI that a uses towards b.
  c.driver.emit('unknownSpi', { spi: row.spiOut ?? 0, from: { address: a.address, port: 4500 } });
  // A stranger's address makes nobody say anything.
  c.driver.emit('unknownSpi', { spi: row.spiOut ?? 0, from: { address: addressesOf(99)[0] ?? a.address, port: 4500 } });
  await wait(150);
  assert.deepEqual((await only(a)).spiOut, row.spiOut);
  assert.equal((await only(a)).rekeys, 0);
});

test('a pod that is revoked loses its tunnels on every node, and gets no new ones', async (t) => {
  const { cluster, a, b, web, db } = await two(t);
  a.driver.send(between(web, db));
  await until('the tunnel', async () => (await isUp(a)()) && (await isUp(b)()));
  await cluster.ca.revoke({ podUids: [db.pod.uid] });
  a.bundles.offer(cluster.ca.bundle);
  await until('the end', async () => (await a.driver.list()).length === 0);
  assert.equal(a.proofs.size, 0);
  b.driver.crash();
  b.driver.send(between(db, web));
  await until('refusal', () => (a.manager.statistics().refused.revoked ?? 0) > 0);
  assert.deepEqual(await a.driver.list(), []);
});

test('while the CA’s root changes, pods of old and new roots have tunnels with each other', async (t) => {
  let now = Date.now();
  const cluster = await TestCluster.make(t, { overlapMs: 0, now: () => now });
  const [a, b] = [await cluster.node(), await cluster.node()];
  const web = await cluster.pod(a, 'web', { addresses: addressesOf(1) });
  await cluster.ca.prepare();
  for (const node of cluster.nodes) node.bundles.offer(cluster.ca.bundle);
  await cluster.ca.activate();
  const db = await cluster.pod(b, 'db', { addresses: addressesOf(2) });
  assert.notEqual(a.svids.get(web.pod.uid)?.chain[0]?.native.issuer, b.svids.get(db.pod.uid)?.chain[0]?.native.issuer);
  a.driver.send(between(web, db));
  await until('the tunnel', async () => (await isUp(a)()) && (await isUp(b)()));
  // The old root goes: what stands on it is not believed any more, what does not goes on.
  now = (cluster.ca.roots.find(({ status }) => status === 'previous')?.issuedUntil ?? 0) + 1;
  await cluster.ca.retire();
  now = Date.now();
  const cache = await cluster.pod(b, 'cache', { addresses: addressesOf(3) });
  const web2 = await cluster.pod(a, 'web2', { addresses: addressesOf(4) });
  for (const node of cluster.nodes) node.bundles.offer(cluster.ca.bundle);
  a.driver.send(between(web2, cache));
  await until('new with new', () => a.driver.waiting(between(web2, cache)) === 0);
  assert.equal(a.driver.send(between(web2, cache)), 'delivered');
  a.driver.send(between(web, cache));
  await until('refusal', () => (b.manager.statistics().refused.untrusted ?? 0) > 0);
});

test('an offer of X25519 alone is taken from peers without the hybrid, and shown as what it is', async (t) => {
  const cluster = await TestCluster.make(t);
  const a = await cluster.node({ groups: 'X25519' });
  const b = await cluster.node();
  const c = await cluster.node({ groups: 'X25519MLKEM768' });
  const web = await cluster.pod(a, 'web', { addresses: addressesOf(1) });
  const db = await cluster.pod(b, 'db', { addresses: addressesOf(2) });
  const vault = await cluster.pod(c, 'vault', { addresses: addressesOf(3) });
  a.driver.send(between(web, db));
  await until('the tunnel', async () => (await isUp(a)()) && (await isUp(b)()));
  assert.equal((await only(a)).group, 'X25519');
  assert.equal((await only(b)).group, 'X25519');
  // A node that insists on the hybrid has none with a peer that lacks it.
  a.driver.send(between(web, vault));
  await until('refusal', () => (c.manager.statistics().refused.tls ?? 0) > 0);
  b.driver.send(between(db, vault));
  await until('the tunnel', isUp(c));
  assert.equal((await only(c)).group, 'X25519MLKEM768');
});

test('many pairs at once: all come up, one handshake each', async (t) => {
  const cluster = await TestCluster.make(t);
  const a = await cluster.node({ mostDials: 8 });
  const b = await cluster.node();
  const left: RemotePod[] = [];
  const right: RemotePod[] = [];
  for (let i = 0; i < 8; i++) {
    left.push(await cluster.pod(a, `l${i}`, { addresses: addressesOf(10 + i) }));
    right.push(await cluster.pod(b, `r${i}`, { addresses: addressesOf(100 + i) }));
  }
  for (const from of left) for (const to of right) a.driver.send(between(from, to));
  await until('64 tunnels', () => a.driver.fates.get('delivered') === 64, 20_000);
  await until('the last words', () => a.manager.statistics().opened === 64);
  assert.equal(b.manager.statistics().answered, 64);
  assert.equal((await a.driver.list()).length, 128);
  await until('no connections', () => b.manager.statistics().connections === 0);
});

test('packets that wait for a pod which this agent does not know yet get their tunnel when it does', async (t) => {
  const { cluster, a, b, db } = await two(t);
  const late = await cluster.pod(b, 'late', { addresses: addressesOf(9) });
  await b.manager.removeLocal(late.pod.uid);
  const web = a.locals[0] ?? assert.fail();
  assert.equal(
    b.driver.send({ local: late.addresses[0] ?? assert.fail(), remote: web.addresses[0] ?? assert.fail() }),
    'held',
  );
  await wait(20);
  assert.equal(b.driver.failed, 0);
  await b.manager.addLocal(late);
  await until('the tunnel', async () => (await b.manager.list()).some(({ state }) => state === 'up'));
  // Told again of what it knows, it leaves the tunnel as it is; told of other addresses, it takes it down.
  const before = b.driver.secrets();
  await b.manager.addLocal(late);
  assert.deepEqual(b.driver.secrets(), before);
  await b.manager.addLocal({ ...late, addresses: addressesOf(10) });
  assert.equal(b.driver.secrets().size, 0);
  assert.ok(db);
});
