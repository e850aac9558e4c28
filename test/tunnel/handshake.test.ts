import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { connect as connectTcp, createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { type ConnectionOptions, connect as connectTls, createSecureContext, type TLSSocket } from 'node:tls';
import { BundleStore } from '../../src/identity/bundle.ts';
import { CertificateAuthority } from '../../src/identity/ca.ts';
import { toPem } from '../../src/identity/certificate.ts';
import { endpointServerName, nodeServerName } from '../../src/identity/names.ts';
import type { Svid } from '../../src/identity/svid.ts';
import type { PeerExpectation } from '../../src/identity/verify.ts';
import { parseIp } from '../../src/model/address.ts';
import { TlsContexts, type TlsIdentity } from '../../src/tunnel/handshake/credentials.ts';
import { dial, podDestination } from '../../src/tunnel/handshake/dial.ts';
import { HandshakeError } from '../../src/tunnel/handshake/error.ts';
import { deriveKeys, exporterLabel } from '../../src/tunnel/handshake/keys.ts';
import { negotiatedGroup } from '../../src/tunnel/handshake/link.ts';
import { PeerVerifier } from '../../src/tunnel/handshake/peer.ts';
import { applicationProtocol, defaultGroups, tlsParameters } from '../../src/tunnel/handshake/tls-parameters.ts';
import type { RemotePod } from '../../src/tunnel/peers.ts';
import { issueSvid, podIdentity, trustDomain } from '../identity/fixtures.ts';
import { addressesOf, type ManagerOver, TestCluster, type TestNode, until } from './fixtures.ts';

interface Port {
  cluster: TestCluster;
  node: TestNode;
  /** The pod of the node that is asked for. */
  db: RemotePod;
  /** A pod of another node, and its certificate. */
  web: RemotePod;
  svid: Svid;
}

async function port(t: TestContext, over: ManagerOver = {}): Promise<Port> {
  const cluster = await TestCluster.make(t);
  const node = await cluster.node({ timeoutMs: 1500, ...over });
  const other = await cluster.node();
  const db = await cluster.pod(node, 'db', { addresses: addressesOf(2) });
  const web = await cluster.pod(other, 'web', { addresses: addressesOf(1) });
  const svid = other.svids.get(web.pod.uid);
  assert.ok(svid);
  return { cluster, node, db, web, svid };
}

const pem = ({ chain, privateKey }: TlsIdentity) => ({
  cert: toPem(chain),
  key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
});

/** A client that does as the test says, and believes everybody. */
async function client(at: Port, options: ConnectionOptions): Promise<TLSSocket> {
  const { promise, resolve, reject } = Promise.withResolvers<TLSSocket>();
  const socket = connectTls({
    host: at.node.address,
    port: at.node.manager.port,
    ...tlsParameters(defaultGroups),
    servername: endpointServerName(at.db.pod.uid, trustDomain),
    ALPNProtocols: [applicationProtocol],
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
    ...options,
  });
  socket.once('secureConnect', () => resolve(socket));
  socket.on('error', reject);
  socket.once('close', () => reject(new Error('closed')));
  return await promise;
}

/** Everything the other side says until it closes. */
async function answerOf(socket: TLSSocket): Promise<string> {
  let text = '';
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  if (!socket.destroyed) await new Promise<void>((resolve) => socket.once('close', resolve));
  return text;
}

async function say(at: Port, options: ConnectionOptions, ...lines: string[]): Promise<string> {
  let socket: TLSSocket;
  try {
    socket = await client(at, options);
  } catch (error) {
    return `no TLS: ${error instanceof Error ? error.message : ''}`;
  }
  const answer = answerOf(socket);
  for (const line of lines) socket.write(line);
  return await answer;
}

function offer(at: Port, over: Record<string, unknown> = {}): string {
  const selectors = at.web.addresses.map((initiator, i) => ({ initiator, responder: at.db.addresses[i] }));
  return `${JSON.stringify({
    type: 'offer',
    version: 1,
    spi: 4711,
    selectors,
    transform: 'aes256gcm16-esn',
    encapsulation: 'udp',
    port: 4500,
    lifetime: { seconds: 3600 },
    ...over,
  })}\n`;
}

const refusals = (at: Port) => at.node.manager.statistics().refused;

/** Checks that exactly this was counted, that nothing is in the driver, and that nothing stays open. */
async function refusedFor(at: Port, reason: string, count = 1): Promise<void> {
  await until(`${reason} counted`, () => Object.values(refusals(at)).reduce((a, b) => a + b, 0) >= count);
  assert.deepEqual(refusals(at), { [reason]: count });
  assert.deepEqual(await at.node.driver.list(), []);
  assert.equal(at.node.proofs.size, 0);
  await until('no connection left', () => at.node.manager.statistics().connections === 0);
}

test('a proper peer is answered; what is derived is the same on both ends and different for each direction, exchange and session', async (t) => {
  const at = await port(t);
  const all = new Set<string>();
  for (let i = 0; i < 3; i++) {
    const socket = await client(at, pem(at.svid));
    const line = offer(at, { spi: 5000 + i, group: 'X25519MLKEM768' });
    socket.write(line);
    const answer = await new Promise<string>((resolve) =>
      socket.once('data', (chunk: Buffer) => resolve(chunk.toString())),
    );
    const { type, spi } = JSON.parse(answer);
    assert.equal(type, 'answer');
    const keys = await deriveKeys(socket, line.trimEnd(), answer.trimEnd());
    const secret = ({ key, salt }: { key: Buffer; salt: Buffer }) => Buffer.concat([key, salt]).toString('hex');
    const [ours, theirs] = [secret(keys.initiatorToResponder), secret(keys.responderToInitiator)];
    await until('inbound', () => at.node.driver.secrets().has(`in ${spi}`));
    assert.equal(at.node.driver.secrets().get(`in ${spi}`), ours);
    assert.equal(
      at.node.driver.secrets().get(`out ${5000 + i}`),
      undefined,
      'nothing is sent before it was acknowledged',
    );
    socket.write('{"type":"installed"}\n');
    const last = await new Promise<string>((resolve) =>
      socket.once('data', (chunk: Buffer) => resolve(chunk.toString())),
    );
    assert.equal(last, '{"type":"installed"}\n');
    assert.equal(at.node.driver.secrets().get(`out ${5000 + i}`), theirs);
    // The transcript is part of the keys: other words in the same session give other keys.
    const other = await deriveKeys(socket, offer(at, { spi: 9999 }).trimEnd(), answer.trimEnd());
    for (const each of [ours, theirs, secret(other.initiatorToResponder)]) all.add(each);
    const plain = socket.exportKeyingMaterial(72, exporterLabel, Buffer.alloc(0)).toString('hex');
    assert.ok(!plain.includes(ours));
    const name = socket.getPeerX509Certificate()?.subjectAltName ?? '';
    assert.ok(name.includes(at.db.spiffeId), name);
    assert.equal(negotiatedGroup(socket), 'X25519MLKEM768');
    assert.equal(socket.getCipher().standardName, 'TLS_AES_256_GCM_SHA384');
    await until('closed', () => socket.destroyed);
  }
  assert.equal(all.size, 9);
  assert.deepEqual(refusals(at), {});
  const [row] = await at.node.manager.list();
  assert.equal(row?.group, 'X25519MLKEM768');
});

test('a peer without a certificate', async (t) => {
  const at = await port(t);
  assert.match(await say(at, {}, offer(at)), /"refused","code":"missing"/);
  await refusedFor(at, 'missing');
});

test('a certificate of somebody who is not at the address it claims', async (t) => {
  const at = await port(t);
  // A proper pod, with the offer of another one's addresses.
  const other = await issueSvid(at.cluster.ca, podIdentity('other', { addresses: addressesOf(7) }));
  assert.match(await say(at, pem(other), offer(at)), /"code":"wrong-address"/);
  await refusedFor(at, 'wrong-address');
});

test('a certificate with the right address, of another pod than is known there', async (t) => {
  const at = await port(t);
  const impostor = await issueSvid(at.cluster.ca, podIdentity('web', { uid: 'another', addresses: at.web.addresses }));
  assert.match(await say(at, pem(impostor), offer(at)), /"code":"wrong-uid"/);
  await refusedFor(at, 'wrong-uid');
});

test('a certificate of the right pod, with another service account', async (t) => {
  const at = await port(t);
  const identity = podIdentity('web', { addresses: at.web.addresses, serviceAccount: 'admin' });
  assert.match(await say(at, pem(await issueSvid(at.cluster.ca, identity)), offer(at)), /"code":"wrong-identity"/);
  await refusedFor(at, 'wrong-identity');
});

test('a pod that nobody knows of', async (t) => {
  const at = await port(t);
  at.node.view.forget(at.web);
  assert.match(await say(at, pem(at.svid), offer(at)), /"code":"unknown-peer"/);
  await refusedFor(at, 'unknown-peer');
});

test('an expired certificate', async (t) => {
  let now = Date.now();
  const at = await port(t, { now: () => now });
  now = at.svid.notAfter + 1;
  assert.match(await say(at, pem(at.svid), offer(at)), /"code":"expired"/);
  await refusedFor(at, 'expired');
});

test('a certificate that has really expired: OpenSSL and we agree', async (t) => {
  const at = await port(t);
  const ca = at.cluster.ca;
  const past = Date.now() - 2 * 3_600_000;
  const old = await CertificateAuthority.open({ trustDomain, now: () => past });
  at.node.bundles.offer({ ...old.bundle, sequence: 99, roots: [...old.bundle.roots, ...ca.bundle.roots] });
  const expired = await issueSvid(old, podIdentity('web', { addresses: at.web.addresses }));
  assert.match(await say(at, pem(expired), offer(at)), /"code":"expired"/);
  await refusedFor(at, 'expired');
});

test('a certificate that is not valid yet', async (t) => {
  let now = Date.now();
  const at = await port(t, { now: () => now });
  now = at.svid.notBefore - 1;
  assert.match(await say(at, pem(at.svid), offer(at)), /"code":"not-yet-valid"/);
  await refusedFor(at, 'not-yet-valid');
});

test('a certificate of another trust domain, and one of an impostor’s CA of the same name', async (t) => {
  const at = await port(t);
  const foreignCa = await CertificateAuthority.open({ trustDomain: 'elsewhere' });
  const foreign = await issueSvid(foreignCa, podIdentity('web', { addresses: at.web.addresses }));
  assert.match(await say(at, pem(foreign), offer(at)), /"code":"foreign-domain"/);
  await refusedFor(at, 'foreign-domain');
  const impostorCa = await CertificateAuthority.open({ trustDomain });
  const impostor = await issueSvid(impostorCa, podIdentity('web', { addresses: at.web.addresses }));
  // With and without its root in the chain.
  for (const chain of [impostor.chain, [...impostor.chain, ...impostorCa.bundle.roots]])
    assert.match(await say(at, pem({ ...impostor, chain }), offer(at)), /"code":"untrusted"/);
  assert.equal(refusals(at).untrusted, 2);
  assert.deepEqual(await at.node.driver.list(), []);
});

test('a node’s certificate where a pod’s is due, and the reverse', async (t) => {
  const at = await port(t);
  const other = at.cluster.nodes[1]?.identity;
  assert.ok(other);
  assert.match(await say(at, pem(other), offer(at)), /"code":"wrong-identity"/);
  await refusedFor(at, 'wrong-identity');
  const notice = '{"type":"unknown-spi","spis":[4711]}\n';
  const servername = nodeServerName(trustDomain);
  assert.match(await say(at, { ...pem(at.svid), servername }, notice), /"code":"wrong-identity"/);
  await refusedFor(at, 'wrong-identity', 2);
  assert.equal(await say(at, { ...pem(other), servername }, notice), '{"type":"noted"}\n');
});

test('a revoked serial number', async (t) => {
  const at = await port(t);
  await at.cluster.ca.revoke({ serials: [at.svid.chain[0]?.serialNumber ?? ''] });
  at.node.bundles.offer(at.cluster.ca.bundle);
  assert.match(await say(at, pem(at.svid), offer(at)), /"code":"revoked"/);
  await refusedFor(at, 'revoked');
});

test('names that nobody here has: no TLS at all', async (t) => {
  const at = await port(t);
  const names = [
    'nobody.cluster.local',
    `${at.db.pod.uid}.elsewhere`,
    'cluster.local',
    '.cluster.local',
    `${at.web.pod.uid}.cluster.local`,
  ];
  for (const servername of names) assert.match(await say(at, { ...pem(at.svid), servername }), /^no TLS/, servername);
  await refusedFor(at, 'unknown-endpoint', names.length);
  assert.match(await say(at, { ...pem(at.svid), servername: '' }), /^no TLS/);
  assert.equal(refusals(at).tls, 1);
});

test('another application protocol, or none', async (t) => {
  const at = await port(t);
  assert.match(await say(at, { ...pem(at.svid), ALPNProtocols: ['h2'] }), /^no TLS/);
  await refusedFor(at, 'alpn');
  const context = createSecureContext({ ...tlsParameters(defaultGroups), ...pem(at.svid) });
  assert.match(await say(at, { secureContext: context, ALPNProtocols: undefined }, offer(at)), /"code":"alpn"/);
  await refusedFor(at, 'alpn', 2);
});

test('an older TLS, another cipher, another group: no TLS', async (t) => {
  const at = await port(t);
  const odd: ConnectionOptions[] = [
    { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2', ciphers: 'ECDHE-ECDSA-AES256-GCM-SHA384' },
    { ciphers: 'TLS_AES_128_GCM_SHA256' },
    { ciphers: 'TLS_CHACHA20_POLY1305_SHA256' },
    { ecdhCurve: 'P-256' },
  ];
  for (const options of odd)
    assert.match(await say(at, { ...pem(at.svid), ...options }), /^no TLS/, JSON.stringify(options));
  await refusedFor(at, 'tls', odd.length);
});

test('a session cannot be resumed', async (t) => {
  const at = await port(t);
  const sessions: Buffer[] = [];
  const first = await client(at, pem(at.svid));
  first.on('session', (session: Buffer) => sessions.push(session));
  first.write(offer(at));
  await new Promise<void>((resolve) => first.once('data', () => resolve()));
  first.destroy();
  for (const session of sessions) {
    const again = await client(at, { ...pem(at.svid), session });
    assert.equal(again.isSessionReused(), false);
    again.destroy();
  }
});

test('offers that are not the two pods’, and messages that are none', async (t) => {
  const at = await port(t);
  const [web4, web6] = at.web.addresses;
  const [db4, db6] = at.db.addresses;
  const cases: [string, string][] = [
    ['selectors', offer(at, { selectors: [{ initiator: web4, responder: '10.244.0.77' }] })],
    ['selectors', offer(at, { selectors: [{ initiator: web4, responder: db6 }] })],
    [
      'selectors',
      offer(at, {
        selectors: [
          { initiator: web4, responder: db4 },
          { initiator: web4, responder: db4 },
        ],
      }),
    ],
    ['wrong-address', offer(at, { selectors: [{ initiator: '10.244.0.77', responder: db4 }] })],
    ['version', offer(at, { version: 2 })],
    ['version', '{"version":7}\n'],
    ['bad-message', offer(at, { selectors: [] })],
    ['bad-message', offer(at, { spi: 255 })],
    ['bad-message', offer(at, { spi: 2 ** 32 })],
    ['bad-message', offer(at, { spi: 1.5 })],
    ['bad-message', offer(at, { spi: '4711' })],
    ['bad-message', offer(at, { transform: 'null' })],
    ['bad-message', offer(at, { encapsulation: 'none' })],
    ['bad-message', offer(at, { port: 0 })],
    ['bad-message', offer(at, { lifetime: { seconds: 0 } })],
    ['bad-message', offer(at, { lifetime: { seconds: 1e9 } })],
    ['bad-message', offer(at, { extra: true })],
    ['bad-message', offer(at, { group: 'a b' })],
    // One address, one spelling.
    ['bad-message', offer(at, { selectors: [{ initiator: web6?.replace('::', ':0::'), responder: db6 }] })],
    ['bad-message', offer(at, { selectors: [{ initiator: `::ffff:${web4}`, responder: db4 }] })],
    ['bad-message', 'hello\n'],
    ['bad-message', '\n'],
    ['bad-message', 'null\n'],
    ['bad-message', '[]\n'],
    ['bad-message', '{"type":"installed"}\n'],
    ['bad-message', Buffer.from([0xff, 0xfe, 0x0a]).toString('latin1')],
    ['bad-message', `${'x'.repeat(5000)}\n`],
    ['bad-message', `${'{'.repeat(2000)}\n`],
  ];
  const expected: Record<string, number> = {};
  for (const [reason, line] of cases) {
    expected[reason] = (expected[reason] ?? 0) + 1;
    assert.match(await say(at, pem(at.svid), line), new RegExp(`"code":"${reason}"`), line.slice(0, 200));
  }
  assert.deepEqual(refusals(at), expected);
  assert.deepEqual(await at.node.driver.list(), []);
  // More than is asked for, at any moment.
  assert.match(await say(at, pem(at.svid), offer(at) + offer(at) + offer(at) + offer(at)), /"code":"bad-message"/);
  await until('nothing left', async () => (await at.node.driver.list()).length === 0);
});

test('a peer that falls silent, or leaves, is let go and leaves nothing', async (t) => {
  const at = await port(t, { timeoutMs: 200 });
  assert.match(await say(at, pem(at.svid)), /"code":"timeout"/);
  await refusedFor(at, 'timeout');
  // After the answer: the inbound SA is there already, and goes again.
  assert.match(await say(at, pem(at.svid), offer(at)), /"type":"answer".*\n.*"code":"timeout"/s);
  await until('the SA is gone', async () => (await at.node.driver.list()).length === 0);
  assert.ok(at.node.driver.log.some((line) => line.startsWith('install in')));
  assert.equal(at.node.proofs.size, 0);
  const leaver = await client(at, pem(at.svid));
  leaver.write(offer(at));
  await new Promise<void>((resolve) => leaver.once('data', () => resolve()));
  leaver.destroy();
  await until('counted', () => refusals(at).disconnected === 1);
  await until('the SA is gone', async () => (await at.node.driver.list()).length === 0);
  const mute = connectTcp(at.node.manager.port, at.node.address);
  mute.on('error', () => {});
  await until('counted', () => refusals(at).timeout === 3);
  mute.destroy();
});

test('a dialler takes nobody for its peer who is not: the pod asked for, at its addresses, proven', async (t) => {
  const at = await port(t);
  const { spiffeId, addresses, pod } = at.db;
  const bundles = new BundleStore(at.cluster.ca.bundle);
  const contexts = new TlsContexts(defaultGroups, () => bundles.current);
  const verifier = new PeerVerifier(() => bundles.current, Date.now);
  const open = async (serverName: string) =>
    await dial(
      podDestination(at.node.address, at.node.manager.port, serverName),
      2000,
      new AbortController().signal,
      contexts.get(at.svid),
    );
  const verdict = async (expected: Omit<Extract<PeerExpectation, { kind: 'pod' }>, 'kind'>) => {
    const link = await open(endpointServerName(pod.uid, trustDomain));
    try {
      verifier.verify(link.facts, { kind: 'pod', ...expected });
      assert.equal(link.facts.authorized, true);
      return 'accepted';
    } catch (error) {
      return error instanceof HandshakeError ? error.code : String(error);
    } finally {
      link.destroy();
    }
  };
  assert.equal(await verdict({ spiffeId, addresses, podUid: pod.uid }), 'accepted');
  assert.equal(await verdict({ spiffeId: at.web.spiffeId }), 'wrong-identity');
  assert.equal(await verdict({ podUid: at.web.pod.uid }), 'wrong-uid');
  assert.equal(await verdict({ addresses: [...addresses, parseIp('10.9.9.9')] }), 'wrong-address');
  // The server's root is not trusted here any more.
  const other = await CertificateAuthority.open({ trustDomain });
  bundles.offer({ ...other.bundle, sequence: 99 });
  assert.equal(await verdict({}), 'untrusted');
  await assert.rejects(open('nobody.cluster.local'), { code: 'disconnected' });
});

test('strangers and crowds are turned away before they cost anything', async (t) => {
  const at = await port(t, { limits: { total: 6, perAddress: 4, strangers: 2 }, timeoutMs: 3000 });
  const open = () => {
    const socket = connectTcp(at.node.manager.port, at.node.address);
    socket.on('error', () => {});
    return socket;
  };
  const sockets = Array.from({ length: 10 }, open);
  // 127.0.0.1 is no node of this cluster.
  await until('turned away', () => refusals(at)['too-many'] === 8);
  assert.equal(at.node.manager.statistics().connections, 2);
  for (const socket of sockets) socket.destroy();
  await until('room again', () => at.node.manager.statistics().connections === 0);
  at.node.view.nodes.set(parseIp('127.0.0.1'), { name: 'near', address: parseIp('127.0.0.1') });
  const more = Array.from({ length: 10 }, open);
  await until('four of one address', () => refusals(at)['too-many'] === 14);
  assert.equal(at.node.manager.statistics().connections, 4);
  for (const socket of more) socket.destroy();
  await until('room again', () => at.node.manager.statistics().connections === 0);
  assert.match(await say(at, pem(at.svid), offer(at)), /"type":"answer"/);
});

test('garbage at the port: counted, closed, forgotten', async (t) => {
  const at = await port(t);
  const hello = await captureHello(at);
  const garbage: Buffer[] = [
    Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'),
    Buffer.from('SSH-2.0-OpenSSH_9.2\r\n'),
    randomBytes(1),
    randomBytes(100),
    randomBytes(100_000),
    Buffer.alloc(1000),
    Buffer.from([0x16, 0x03, 0x01, 0xff, 0xff]),
  ];
  for (let i = 0; i < 60; i++) {
    const cut = hello.subarray(0, Math.floor((hello.length * i) / 60));
    const bent = Buffer.from(hello);
    const at = (i * 7919) % bent.length;
    bent[at] = (bent[at] ?? 0) ^ (1 << (i % 8));
    garbage.push(cut, bent, Buffer.concat([hello.subarray(0, 40 + i), randomBytes(200)]));
  }
  const before = process.memoryUsage().rss;
  await Promise.all(
    garbage.map(
      (bytes) =>
        new Promise<void>((resolve) => {
          const socket = connectTcp({ host: at.node.address, port: at.node.manager.port, allowHalfOpen: true });
          socket.on('error', () => {});
          socket.on('data', () => {});
          socket.on('close', () => resolve());
          socket.on('end', () => socket.end());
          socket.end(bytes);
        }),
    ),
  );
  await until('all closed', () => at.node.manager.statistics().connections === 0);
  const counted = Object.values(refusals(at)).reduce((a, b) => a + b, 0);
  assert.ok(counted > 100, `${counted} of ${garbage.length} counted: ${JSON.stringify(refusals(at))}`);
  const grown = (process.memoryUsage().rss - before) / 2 ** 20;
  assert.ok(grown < 100, `${grown} MiB more`);
  assert.match(await say(at, pem(at.svid), offer(at)), /"type":"answer"/);
});

/** The first bytes of a real handshake. */
async function captureHello(at: Port): Promise<Buffer> {
  const { promise, resolve } = Promise.withResolvers<Buffer>();
  const server = createServer((socket) =>
    socket.once('data', (chunk: Buffer) => {
      resolve(chunk);
      socket.destroy();
    }),
  );
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  const socket = connectTls({
    host: '127.0.0.1',
    port: address.port,
    ...tlsParameters(defaultGroups),
    servername: endpointServerName(at.db.pod.uid, trustDomain),
    ALPNProtocols: [applicationProtocol],
    rejectUnauthorized: false,
  });
  socket.on('error', () => {});
  const hello = await promise;
  server.close();
  return hello;
}
