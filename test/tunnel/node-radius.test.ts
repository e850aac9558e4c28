import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { toPem } from '../../src/identity/certificate.ts';
import { nodeServerName } from '../../src/identity/names.ts';
import type { BreachRadius } from '../../src/tunnel/handshake/exchange.ts';
import {
  encodeChain,
  encodedInstalled,
  encodeHello,
  encodePair,
  messageTypes,
  type PairTerms,
} from '../../src/tunnel/handshake/pair-messages.ts';
import { chainDigest } from '../../src/tunnel/handshake/shown-chain.ts';
import {
  applicationProtocol,
  defaultGroups,
  nodeProtocol,
  tlsParameters,
} from '../../src/tunnel/handshake/tls-parameters.ts';
import type { RemotePod } from '../../src/tunnel/peers.ts';
import { issueSvid, podIdentity, trustDomain } from '../identity/fixtures.ts';
import { addressesOf, between, type ManagerOver, TestCluster, type TestNode, until } from './fixtures.ts';

interface Two {
  readonly cluster: TestCluster;
  readonly a: TestNode;
  readonly b: TestNode;
  readonly web: RemotePod;
  readonly db: RemotePod;
  /** What each node takes the namespaces to say. */
  readonly says: { a: BreachRadius; b: BreachRadius };
}

async function two(t: TestContext, over: ManagerOver = {}, says: Two['says'] = { a: 'node', b: 'node' }): Promise<Two> {
  const cluster = await TestCluster.make(t);
  const a = await cluster.node({ ...over, radius: () => says.a });
  const b = await cluster.node({ ...over, radius: () => says.b });
  const web = await cluster.pod(a, 'web', { addresses: addressesOf(1) });
  const db = await cluster.pod(b, 'db', { addresses: addressesOf(2) });
  return { cluster, a, b, web, db, says };
}

const delivered = (node: TestNode) => node.driver.fates.get('delivered') ?? 0;

/** Sends one packet and waits until it has arrived, and until both ends of the tunnel are up. */
async function send({ a, b, web, db }: Two): Promise<void> {
  a.driver.send(between(web, db));
  await until('delivered', () => delivered(a) > 0);
  for (const node of [a, b]) await until('up', async () => (await node.manager.list())[0]?.state === 'up');
}

test('many pairs, both ways, over one handshake of the nodes; every pair with keys of its own', async (t) => {
  const at = await two(t);
  const { cluster, a, b, web, db } = at;
  const webs = [web];
  const dbs = [db];
  for (let i = 1; i < 6; i++) {
    webs.push(await cluster.pod(a, `web-${i}`, { addresses: addressesOf(100 + i) }));
    dbs.push(await cluster.pod(b, `db-${i}`, { addresses: addressesOf(200 + i) }));
  }
  await send(at);
  for (const [i, from] of webs.entries())
    for (const [j, to] of dbs.entries()) {
      // Either side begins.
      if ((i + j) % 2 === 0) a.driver.send(between(from, to));
      else b.driver.send(between(to, from, 6));
    }
  await until('all up', async () => (await a.manager.list()).filter(({ state }) => state === 'up').length === 36);
  await until('all there', async () => (await b.manager.list()).filter(({ state }) => state === 'up').length === 36);
  for (const node of [a, b]) {
    assert.deepEqual(node.manager.statistics().refused, {});
    assert.equal(node.manager.statistics().nodeHandshakes, 1);
    assert.ok(
      (await node.manager.list()).every(({ radius, group }) => radius === 'node' && group === 'X25519MLKEM768'),
    );
  }
  const secrets = [...a.driver.secrets(), ...b.driver.secrets()];
  assert.equal(secrets.length, 4 * 36);
  assert.equal(new Set(secrets.map(([, secret]) => secret)).size, 2 * 36);
  // A key that is held on one side only would be a packet that nobody opens.
  for (const from of webs) for (const to of dbs) assert.equal(a.driver.send(between(from, to)), 'delivered');
  for (const from of webs) for (const to of dbs) assert.equal(b.driver.send(between(to, from)), 'delivered');
  assert.deepEqual(a.proofs.get(`${web.addresses[0]} ${db.addresses[0]}`)?.remoteUid, db.pod.uid);
});

test('where the nodes disagree the stricter holds, whichever begins', async (t) => {
  for (const says of [
    { a: 'pod', b: 'node' },
    { a: 'node', b: 'pod' },
  ] as const) {
    const at = await two(t, {}, { ...says });
    const { a, b } = at;
    await send(at);
    const [row] = await a.manager.list();
    assert.equal(row?.radius, 'pod');
    const { refused } = b.manager.statistics();
    // The node that is stricter refuses what is not enough, by its own reason, and takes what is.
    assert.deepEqual(refused, says.b === 'pod' ? { radius: 1 } : {});
    assert.equal(delivered(a), 1);
  }
});

test('a change of the setting replaces keys, and nothing is lost on the way', async (t) => {
  const at = await two(t);
  const { a, b, web, db, says } = at;
  await send(at);
  let sent = delivered(a) + delivered(b);
  for (const radius of ['pod', 'node', 'pod', 'node'] as const) {
    says.a = radius;
    // One node hears of it before the other.
    const first = a.manager.reconcile();
    for (let i = 0; i < 5; i++) {
      a.driver.send(between(web, db));
      b.driver.send(between(db, web));
      sent += 2;
      await wait(1);
    }
    says.b = radius;
    await Promise.all([first, b.manager.reconcile()]);
    for (const node of [a, b])
      await until(`${radius} everywhere`, async () => {
        a.driver.send(between(web, db));
        b.driver.send(between(db, web));
        sent += 2;
        const [row] = await node.manager.list();
        return row?.state === 'up' && row.radius === radius;
      });
  }
  assert.equal(delivered(a) + delivered(b), sent);
  for (const node of [a, b])
    assert.deepEqual([...node.driver.fates.keys()].sort(), node === a ? ['delivered', 'held'] : ['delivered']);
});

test('the nodes shake hands anew on schedule, and when a key has carried what it may; idle sessions end', async (t) => {
  const at = await two(t, { nodeSessionSeconds: 0.2, nodeIdleSeconds: 30 });
  const { a, b, web, db } = at;
  await send(at);
  const handshakes = () => a.manager.statistics().nodeHandshakes;
  assert.equal(handshakes(), 1);
  await until('over', () => a.manager.statistics().nodeSessions === 0 && b.manager.statistics().nodeSessions === 0);
  // Keys live on.
  assert.equal(a.driver.send(between(web, db)), 'delivered');
  a.driver.reachLimit(between(web, db), 'soft');
  await until('rekeyed', async () => (await a.manager.list())[0]?.rekeys === 1);
  assert.equal(handshakes(), 2);

  const long = await two(t, { nodeIdleSeconds: 30 });
  await send(long);
  long.a.driver.reachLimit(between(long.web, long.db), 'soft');
  await until('rekeyed', async () => (await long.a.manager.list())[0]?.rekeys === 1);
  assert.equal(long.a.manager.statistics().nodeHandshakes, 2);

  const idle = await two(t, { nodeIdleSeconds: 0.05 });
  await send(idle);
  await until('ended', () => idle.b.manager.statistics().connections === 0);
  assert.equal(idle.a.driver.send(between(idle.web, idle.db)), 'delivered');
});

test('both nodes begin at once: packets of both arrive, one tunnel is left', async (t) => {
  for (let i = 0; i < 10; i++) {
    const { a, b, web, db } = await two(t);
    a.driver.send(between(web, db));
    b.driver.send(between(db, web));
    await until('both', () => delivered(a) === 1 && delivered(b) === 1);
    for (const node of [a, b]) await until('up', async () => (await node.manager.list())[0]?.state === 'up');
    const [here] = await a.manager.list();
    const [there] = await b.manager.list();
    await until('one pair', () => a.driver.send(between(web, db)) === 'delivered');
    assert.equal(here?.radius, 'node');
    assert.equal(there?.radius, 'node');
  }
});

test('an agent that was away is shaken hands with again; its successor knows what its keys came out of', async (t) => {
  const at = await two(t, { timeoutMs: 300 });
  const { a, b, web, db } = at;
  await send(at);
  await b.restart();
  a.view.learn({ ...db, node: b.peer });
  a.view.nodes.set(b.address, b.peer);
  await a.manager.reconcile();
  a.driver.reachLimit(between(web, db), 'soft');
  await until('rekeyed', async () => (await a.manager.list())[0]?.rekeys === 1);
  assert.equal(a.manager.statistics().nodeHandshakes, 2);
  // What an agent left is what its successor finds, radius and all.
  await a.restart();
  const [row] = await a.manager.list();
  assert.equal(row?.radius, 'node');
  assert.equal(row?.state, 'up');
});

test('a node or a serial that is revoked: its sessions and the keys derived in them end', async (t) => {
  for (const what of ['spiffeIds', 'serials'] as const) {
    const at = await two(t);
    const { cluster, a, b, web, db } = at;
    await send(at);
    const leaf = b.identity.chain[0];
    await cluster.ca.revoke({ [what]: [what === 'spiffeIds' ? (leaf?.uris[0] ?? '') : (leaf?.serialNumber ?? '')] });
    a.bundles.offer(cluster.ca.bundle);
    await until('gone', async () => (await a.driver.list()).length === 0);
    assert.equal(a.manager.statistics().nodeSessions, 0);
    assert.equal(a.proofs.size, 0);
    a.driver.send(between(web, db));
    await until('refused', async () => (await a.manager.list())[0]?.lastErrorCode === 'revoked');
  }
});

/** A node of the cluster that says what the test says, to node `at`. */
async function rogue(
  at: TestNode,
  as: TestNode | { identity: TestNode['identity'] },
  over: object = {},
): Promise<TLSSocket> {
  const { chain, privateKey } = as.identity;
  const socket = connect({
    host: at.address,
    port: at.manager.port,
    ...tlsParameters(defaultGroups),
    servername: nodeServerName(trustDomain),
    ALPNProtocols: [nodeProtocol],
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
    cert: toPem(chain),
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
    ...over,
  });
  socket.on('error', () => {});
  return socket;
}

/** A frame of a node session. @param message A string of bytes. */
function frame(conversation: number, message: string): Buffer {
  const head = Buffer.alloc(6);
  head.writeUInt16BE(4 + message.length);
  head.writeUInt32BE(conversation, 2);
  return Buffer.concat([head, Buffer.from(message, 'latin1')]);
}

const hello = frame(0, encodeHello(undefined));

/** What came, one word for a frame: its type, or the code of a refusal. */
function words(bytes: Buffer): string[] {
  const said: string[] = [];
  for (let at = 0; at + 2 <= bytes.length; at += 2 + bytes.readUInt16BE(at)) {
    const type = bytes.readUInt8(at + 6);
    const code = bytes.subarray(at + 8, at + 8 + bytes.readUInt8(at + 7)).toString();
    said.push(type === messageTypes.refused ? code : String(type));
  }
  return said;
}

/** @returns What is said after the greeting: the first answer that is no chain. */
async function ask(
  at: TestNode,
  as: { identity: TestNode['identity'] },
  ...said: readonly Buffer[]
): Promise<string | undefined> {
  const socket = await rogue(at, as);
  let bytes = Buffer.alloc(0);
  const answer = () => words(bytes).find((word) => word !== '1' && word !== '2');
  socket.on('data', (chunk: Buffer) => {
    bytes = Buffer.concat([bytes, chunk]);
    if (answer() !== undefined) socket.end();
  });
  socket.write(Buffer.concat([hello, ...said]));
  if (!socket.destroyed) await new Promise<void>((resolve) => socket.once('close', () => resolve()));
  return answer();
}

test('what a node of the cluster cannot do: speak for another’s pod, for nobody’s, or where the setting says pod', async (t) => {
  const { cluster, a, b, web, db, says } = await two(t);
  const c = await cluster.node({ radius: () => 'node' });
  const svid = a.svids.get(web.pod.uid);
  assert.ok(svid);
  const ders = ({ chain }: Pick<typeof svid, 'chain'>) => chain.map(({ der }) => der);
  /** An offer, and before it the chain that it names. */
  const offer = (over: Partial<PairTerms & { to: string }> = {}, chain = ders(svid)) => {
    const terms = {
      spi: 4711,
      selectors: web.addresses.map((initiator, i) => ({ initiator, responder: db.addresses[i] ?? initiator })),
      port: 4500,
      lifetime: { seconds: 3600 },
      svid: chainDigest(chain),
      ...over,
    };
    return Buffer.concat([
      frame(0, encodeChain(chain)),
      frame(1, encodePair(terms, Buffer.alloc(32), over.to ?? db.pod.uid)),
    ]);
  };
  // The proper node is answered.
  assert.equal(await ask(b, a, offer()), String(messageTypes['pair-answer']));
  await until('nothing left', async () => (await b.driver.list()).length === 0);
  // The very same words from another node of the cluster.
  assert.equal(await ask(b, c, offer()), 'wrong-node');
  const another = await issueSvid(cluster.ca, podIdentity('another', { addresses: web.addresses }));
  assert.equal(await ask(b, a, offer({}, ders(another))), 'wrong-uid');
  const elsewhere = await issueSvid(cluster.ca, podIdentity('web', { addresses: addressesOf(9) }));
  assert.equal(await ask(b, a, offer({}, ders(elsewhere))), 'wrong-address');
  assert.equal(await ask(b, a, offer({}, ders(a.identity))), 'wrong-identity');
  assert.equal(await ask(b, a, offer({}, [Buffer.alloc(3)])), 'malformed');
  // What was shown before does not vouch for what was not, nor in another session.
  assert.equal(await ask(b, a, offer({ svid: chainDigest(ders(another)) })), 'missing');
  assert.equal(await ask(b, a, offer({ to: 'nobody' })), 'unknown-endpoint');
  assert.equal(await ask(b, a, offer({ spi: 17 })), 'bad-message');
  assert.equal(await ask(b, a, frame(1, encodedInstalled)), 'bad-message');
  says.b = 'pod';
  assert.equal(await ask(b, a, offer()), 'radius');
  says.b = 'node';
  // A pod's certificate opens no session of nodes.
  assert.equal(await ask(b, { identity: svid }, offer()), undefined);
  await until('counted', () => b.manager.statistics().refused['wrong-identity'] === 2);
  await cluster.ca.revoke({ podUids: [web.pod.uid] });
  b.bundles.offer(cluster.ca.bundle);
  assert.equal(await ask(b, a, offer()), 'revoked');
  assert.deepEqual(await b.driver.list(), []);
  assert.equal(b.proofs.size, 0);
  await until('no session left', () => b.manager.statistics().nodeSessions === 0);
});

test('garbage within a session ends it, and nothing else', async (t) => {
  const at = await two(t);
  const { a, b, web, db } = at;
  await send(at);
  const thick = Buffer.alloc(9000);
  const many = Array.from({ length: 1025 }, (_, i) => frame(0, encodeChain([Buffer.from(`certificate ${i}`)])));
  for (const bytes of [
    Buffer.alloc(7),
    frame(2 ** 31, encodedInstalled),
    frame(0, 'x'.repeat(60_000)),
    hello,
    frame(0, encodeChain([])),
    frame(0, encodeChain([thick, thick])),
    frame(0, encodedInstalled),
    // More than anybody has to show: what is remembered of a session is bounded.
    Buffer.concat(many),
  ]) {
    const socket = await rogue(b, a);
    socket.resume();
    socket.write(Buffer.concat([hello, bytes]));
    await new Promise<void>((resolve) => socket.once('close', () => resolve()));
  }
  const newer = await rogue(b, a);
  newer.resume();
  newer.write(frame(0, '\x01\x02\x00'));
  await new Promise<void>((resolve) => newer.once('close', () => resolve()));
  await until('counted', () => b.manager.statistics().refused.version === 1);
  // More at once than anybody may have under way: each is told so, and memory is bounded.
  const crowd = await rogue(b, a);
  let told = Buffer.alloc(0);
  crowd.on('data', (chunk: Buffer) => {
    told = Buffer.concat([told, chunk]);
  });
  const chain = a.svids.get(web.pod.uid)?.chain.map(({ der }) => der) ?? [];
  const terms = {
    spi: 4711,
    port: 4500,
    lifetime: { seconds: 3600 },
    svid: chainDigest(chain),
    selectors: [between(web, db)].map(({ local, remote }) => ({ initiator: local, responder: remote })),
  };
  const offer = encodePair(terms, Buffer.alloc(32), db.pod.uid);
  // A driver that takes its time keeps each under way.
  const { promise: later, resolve: goOn } = Promise.withResolvers<void>();
  b.driver.delay = () => later;
  const offers = Array.from({ length: 300 }, (_, i) => frame(2 * i + 1, offer));
  crowd.write(Buffer.concat([hello, frame(0, encodeChain(chain)), ...offers]));
  const count = (code: string) => words(told).filter((word) => word === code).length;
  await until('the last are told', () => count('too-many') === 44);
  b.driver.delay = undefined;
  goOn();
  // A peer that offers twice has given up what it offered first.
  await until('the others too', () => count('aborted') === 255);
  crowd.destroy();
  // The session that stands is untouched.
  a.driver.reachLimit(between(web, db), 'soft');
  await until('rekeyed', async () => (await a.manager.list())[0]?.rekeys === 1);
});

test('an agent that knows no node sessions is asked for a handshake of the pair’s own', async (t) => {
  const { a, b, web, db } = await two(t);
  const svid = b.svids.get(db.pod.uid);
  assert.ok(svid);
  const asked: string[] = [];
  const older = createServer(
    {
      ...tlsParameters(defaultGroups),
      ALPNProtocols: [applicationProtocol],
      cert: toPem(svid.chain),
      key: svid.privateKey.export({ type: 'pkcs8', format: 'pem' }),
      requestCert: true,
      rejectUnauthorized: false,
    },
    (socket) => {
      asked.push(`${'servername' in socket ? String(socket.servername) : ''} ${String(socket.alpnProtocol)}`);
      socket.on('error', () => {}).destroy();
    },
  );
  older.on('tlsClientError', () => asked.push('refused'));
  older.listen(0, b.address);
  t.after(() => older.close());
  await once(older, 'listening');
  const address = older.address();
  assert.ok(typeof address === 'object' && address !== null);
  a.view.learn({ ...db, node: { ...b.peer, handshakePort: address.port } });
  a.driver.send(between(web, db));
  await until('asked for the pod', () => asked.length >= 2);
  assert.deepEqual(asked.slice(0, 2), ['refused', `${db.pod.uid}.${trustDomain} ${applicationProtocol}`]);
});

test('a node that has fallen silent is noticed: the next pair has a new handshake', async (t) => {
  const { a, b, web, db } = await two(t, { timeoutMs: 250, timing: { firstRetryMs: 5, longestRetryMs: 20 } });
  const { chain, privateKey } = b.identity;
  let sessions = 0;
  // Says hello, and then nothing more, for ever: as a connection whose other end lost its power.
  const mute = createServer(
    {
      ...tlsParameters(defaultGroups),
      ALPNProtocols: [nodeProtocol],
      cert: toPem(chain),
      key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
      requestCert: true,
      rejectUnauthorized: false,
    },
    (socket) => {
      sessions++;
      socket.on('error', () => {}).resume();
      socket.write(hello);
    },
  );
  mute.listen(0, b.address);
  t.after(() => mute.close());
  await once(mute, 'listening');
  const address = mute.address();
  assert.ok(typeof address === 'object' && address !== null);
  a.view.learn({ ...db, node: { ...b.peer, handshakePort: address.port } });
  a.driver.send(between(web, db));
  await until('another session', () => sessions >= 2);
  assert.ok((a.manager.statistics().refused.timeout ?? 0) >= 1);
  assert.deepEqual(await a.driver.list(), []);
});
