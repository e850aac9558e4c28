import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { request as httpsRequest } from 'node:https';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { kinds, type Live, type Node, type Pod } from '../../src/api/kinds.ts';
import { Controller } from '../../src/controller/controller.ts';
import { BundleStore } from '../../src/identity/bundle.ts';
import { watchBundle } from '../../src/identity/bundle-watch.ts';
import { CertificateAuthority, type Credentials } from '../../src/identity/ca.ts';
import { parseCertificates, toPem } from '../../src/identity/certificate.ts';
import { ControllerIssuer } from '../../src/identity/controller-issuer.ts';
import { buildCsr } from '../../src/identity/csr.ts';
import { IdentityError } from '../../src/identity/error.ts';
import { SvidStore } from '../../src/identity/svid-store.ts';
import { verifyPeer } from '../../src/identity/verify.ts';
import { newKeyPair } from '../../src/identity/x509.ts';
import { type IpAddress, parseIp } from '../../src/model/address.ts';
import { parsePrefix } from '../../src/model/prefix.ts';
import { TestApi } from '../api/harness.ts';
import { silent } from '../identity/fixtures.ts';

const trustDomain = 'cluster.local';

interface Place {
  api: TestApi;
  controller: Controller;
  /** For what a test needs signed without being asked. */
  ca: CertificateAuthority;
  url: string;
  issuer: (credentials: Pick<Credentials, 'chain' | 'privateKey'>) => ControllerIssuer;
  n1: Credentials;
  n2: Credentials;
  pod: (
    name: string,
    node: string,
    over?: { addresses?: string[]; serviceAccount?: string; hostNetwork?: boolean; phase?: string },
  ) => Promise<Live<Pod>>;
}

async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!(await condition())) {
    if (performance.now() > deadline) assert.fail(`never came: ${what}`);
    await wait(5);
  }
}

async function place(t: TestContext): Promise<Place> {
  const api = await TestApi.start(t);
  const directory = mkdtempSync(join(tmpdir(), `myelin-controller-${process.pid}-`));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const ca = await CertificateAuthority.open({ trustDomain, directory: join(directory, 'ca') });
  const server = await ca.issueServer({
    commonName: 'controller',
    dnsNames: ['localhost'],
    addresses: [parseIp('127.0.0.1')],
  });
  for (const name of ['n1', 'n2'])
    await api.client.create(kinds.Node, { apiVersion: 'v1', kind: 'Node', metadata: { name } });
  await api.client.create(kinds.Namespace, { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop' } });
  const controller = await Controller.start(
    {
      listen: { host: '127.0.0.1', port: 0 },
      trustDomain,
      caDirectory: join(directory, 'ca'),
      podCidrs: ['10.244.0.0/16', 'fd00:10:244::/56'].map(parsePrefix),
      rootOverlapMs: 0,
    },
    { api: api.client, credentials: { cert: server.chain, key: server.privateKey }, logger: silent },
  );
  t.after(() => controller.close());
  const url = `https://127.0.0.1:${controller.port}`;
  await until('pod CIDRs', async () => (await nodes(api)).every(({ spec }) => spec?.podCIDR !== undefined));
  return {
    api,
    controller,
    ca,
    url,
    issuer: (credentials) => {
      const issuer = new ControllerIssuer(
        { url },
        { credentials: () => credentials, roots: () => toPem(ca.bundle.roots) },
      );
      t.after(() => issuer.close());
      return issuer;
    },
    n1: await ca.issueNode('n1'),
    n2: await ca.issueNode('n2'),
    pod: async (name, node, over = {}) => {
      const { addresses = [], serviceAccount = name, hostNetwork = false, phase } = over;
      const account = {
        apiVersion: 'v1',
        kind: 'ServiceAccount',
        metadata: { name: serviceAccount, namespace: 'shop' },
      } as const;
      await api.client.create(kinds.ServiceAccount, account);
      const pod = await api.client.create(kinds.Pod, {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name, namespace: 'shop' },
        spec: {
          ...(node === '' ? {} : { nodeName: node }),
          serviceAccountName: serviceAccount,
          hostNetwork,
          containers: [{ name: 'main', image: 'x' }],
        },
      });
      if (addresses.length > 0 || phase !== undefined)
        await api.client.patchStatus(
          kinds.Pod,
          { namespace: 'shop', name },
          {
            type: 'merge',
            patch: { status: { phase, podIP: addresses[0], podIPs: addresses.map((ip) => ({ ip })) } },
          },
        );
      return pod;
    },
  };
}

async function nodes(api: TestApi): Promise<Live<Node>[]> {
  const { entries } = await api.client.list(kinds.Node);
  return entries.flatMap(({ object }) => object ?? []);
}

const never = new AbortController().signal;

async function ask(
  issuer: ControllerIssuer,
  pod: Live<Pod>,
  over: { uid?: string; name?: string; serviceAccount?: string; addresses?: string[]; csr?: string } = {},
) {
  const { uid = pod.metadata.uid, name = pod.metadata.name, serviceAccount = pod.spec.serviceAccountName ?? '' } = over;
  const addresses: IpAddress[] = (over.addresses ?? ['10.244.0.5', 'fd00:10:244::5']).map(parseIp);
  const csr = over.csr ?? (await buildCsr(await newKeyPair()));
  return await issuer.issue({ pod: { namespace: 'shop', name, uid }, serviceAccount, addresses, csr }, never);
}

async function reason(asked: Promise<unknown>): Promise<unknown> {
  try {
    await asked;
    return 'signed';
  } catch (error) {
    assert.ok(error instanceof IdentityError, String(error));
    return error.data.reason ?? error.code;
  }
}

test('nodes get their pod CIDRs, and keep what they have', async (t) => {
  const { api } = await place(t);
  const given = (await nodes(api)).map(({ metadata, spec }) => [metadata.name, spec?.podCIDR, spec?.podCIDRs]);
  assert.deepEqual(given, [
    ['n1', '10.244.0.0/24', ['10.244.0.0/24', 'fd00:10:244::/64']],
    ['n2', '10.244.1.0/24', ['10.244.1.0/24', 'fd00:10:244:1::/64']],
  ]);
  await api.client.delete(kinds.Node, { name: 'n1' });
  const taken = { podCIDR: '10.244.0.0/24', podCIDRs: ['10.244.0.0/24'] };
  await api.client.create(kinds.Node, { apiVersion: 'v1', kind: 'Node', metadata: { name: 'n3' }, spec: taken });
  await api.client.create(kinds.Node, { apiVersion: 'v1', kind: 'Node', metadata: { name: 'n4' } });
  await until('n4', async () => (await nodes(api)).every(({ spec }) => spec?.podCIDR !== undefined));
  const last = (await nodes(api)).map(({ metadata, spec }) => `${metadata.name} ${spec?.podCIDRs?.join()}`);
  assert.deepEqual(last, [
    'n2 10.244.1.0/24,fd00:10:244:1::/64',
    'n3 10.244.0.0/24',
    'n4 10.244.2.0/24,fd00:10:244:2::/64',
  ]);
});

test('a node gets the certificate of a pod that it hosts, before and after the API has the pod’s addresses', async (t) => {
  const { issuer, n1, ca, pod, api, controller } = await place(t);
  const web = await pod('web', 'n1');
  const node = issuer(n1);
  const { chain, bundle } = await ask(node, web);
  const verified = verifyPeer(
    parseCertificates(chain),
    ca.bundle,
    { kind: 'pod', podUid: web.metadata.uid },
    Date.now(),
  );
  assert.ok(verified.ok);
  assert.equal(verified.value.spiffeId, 'spiffe://cluster.local/ns/shop/sa/web');
  assert.deepEqual([...verified.value.addresses].sort(), ['10.244.0.5', 'fd00:10:244::5']);
  assert.equal(bundle.sequence, ca.bundle.sequence);
  await api.client.patchStatus(
    kinds.Pod,
    { namespace: 'shop', name: 'web' },
    {
      type: 'merge',
      patch: { status: { podIP: '10.244.0.5', podIPs: [{ ip: '10.244.0.5' }, { ip: 'fd00:10:244::5' }] } },
    },
  );
  assert.equal(await reason(ask(node, web)), 'signed');
  assert.equal(controller.service.statistics().issued, 2);
});

test('nothing is signed for a pod that the node does not host, or that is not what it says', async (t) => {
  const { issuer, n1, n2, ca, pod, controller } = await place(t);
  const web = await pod('web', 'n1', { addresses: ['10.244.0.5', 'fd00:10:244::5'] });
  const fresh = await pod('fresh', 'n1');
  const nowhere = await pod('nowhere', '');
  const host = await pod('host', 'n1', { hostNetwork: true, addresses: ['10.0.0.1'] });
  const done = await pod('done', 'n1', { phase: 'Succeeded', addresses: ['10.244.0.9'] });
  const [one, two] = [issuer(n1), issuer(n2)];
  const ghost = issuer(await ca.issueNode('ghost'));
  const web4 = ['10.244.0.5'];
  const cases: [string, () => Promise<unknown>][] = [
    // Another node asks: the attack that the check is there for.
    ['other-node', () => ask(two, web)],
    ['other-node', () => ask(two, web, { addresses: ['10.244.1.5'] })],
    ['other-node', () => ask(one, nowhere)],
    ['no-such-node', () => ask(ghost, web)],
    ['no-such-pod', () => ask(one, web, { name: 'nobody' })],
    ['wrong-uid', () => ask(one, web, { uid: fresh.metadata.uid })],
    ['wrong-service-account', () => ask(one, web, { serviceAccount: 'admin' })],
    ['host-network', () => ask(one, host)],
    ['pod-ended', () => ask(one, done, { addresses: ['10.244.0.9'] })],
    ['wrong-address', () => ask(one, web, { addresses: ['10.244.0.6'] })],
    ['wrong-address', () => ask(one, web, { addresses: [...web4, 'fd00:10:244::6'] })],
    ['foreign-address', () => ask(one, fresh, { addresses: ['10.244.1.7'] })],
    ['foreign-address', () => ask(one, fresh, { addresses: ['10.244.0.7', 'fd00:10:244:1::7'] })],
    ['foreign-address', () => ask(one, fresh, { addresses: ['8.8.8.8'] })],
    ['address-in-use', () => ask(one, fresh, { addresses: web4 })],
    ['bad-request', () => ask(one, fresh, { addresses: ['10.244.0.7', '10.244.0.8'] })],
    ['bad-request', () => ask(one, fresh, { addresses: [] })],
    ['bad-csr', () => ask(one, fresh, { addresses: ['10.244.0.7'], csr: 'nonsense' })],
  ];
  const counted: Record<string, number> = {};
  for (const [expected, asked] of cases) {
    assert.equal(await reason(asked()), expected);
    counted[expected] = (counted[expected] ?? 0) + 1;
  }
  assert.deepEqual(controller.service.statistics(), { issued: 0, denied: counted });
  assert.equal(await reason(ask(one, web)), 'signed');
  // A refused request holds nothing back.
  assert.equal(await reason(ask(one, fresh, { addresses: ['10.244.0.7'] })), 'signed');
});

test('an address is one pod’s, also while the API does not know of it', async (t) => {
  const { issuer, n1, pod, api } = await place(t);
  const [first, second] = [await pod('first', 'n1'), await pod('second', 'n1')];
  const node = issuer(n1);
  assert.equal(await reason(ask(node, first)), 'signed');
  assert.equal(await reason(ask(node, second)), 'address-in-use');
  assert.equal(await reason(ask(node, first)), 'signed');
  // Two at once.
  const third = await pod('third', 'n1');
  const both = await Promise.all([second, third].map((each) => reason(ask(node, each, { addresses: ['10.244.0.8'] }))));
  assert.deepEqual(both.sort(), ['address-in-use', 'signed']);
  // It is free again once the pod is gone.
  await api.client.delete(kinds.Pod, { namespace: 'shop', name: 'first' }, { gracePeriodSeconds: 0 });
  await until('free', async () => (await reason(ask(node, second))) === 'signed');
  assert.equal(await reason(ask(node, first)), 'no-such-pod');
});

test('who is not a node gets nothing', async (t) => {
  const { issuer, n1, ca, pod, url, controller } = await place(t);
  const web = await pod('web', 'n1');
  const impostor = await CertificateAuthority.open({ trustDomain });
  const keys = await newKeyPair();
  const leaf = await ca.signSvid(await buildCsr(keys), {
    spiffeId: 'spiffe://cluster.local/ns/shop/sa/web' as never,
    podUid: web.metadata.uid,
    addresses: [parseIp('10.244.0.5')],
  });
  const asPod = {
    chain: leaf.native.toString(),
    privateKey: keys.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  };
  const nobody: [Pick<Credentials, 'chain' | 'privateKey'>, string][] = [
    [asPod, 'not-a-node'],
    [await ca.issueClient('system:node:n1', ['system:nodes']), 'not-a-node'],
    [await ca.issueClient('admin'), 'not-a-node'],
    [await impostor.issueNode('n1'), 'IssuerUnreachable'],
  ];
  for (const [credentials, expected] of nobody) assert.equal(await reason(ask(issuer(credentials), web)), expected);
  await controller.ca.revoke({ spiffeIds: ['spiffe://cluster.local/node/n1'] });
  assert.equal(await reason(ask(issuer(n1), web)), 'revoked');
  // No certificate at all, and no TLS at all.
  const { hostname, port } = new URL(url);
  await assert.rejects(fetchJson(url, '/v1/bundle', undefined, ca));
  const socket = connect(Number(port), hostname);
  socket.on('error', () => {});
  socket.write('GET /v1/bundle HTTP/1.1\r\n\r\n');
  await new Promise<void>((resolve) => socket.once('close', () => resolve()));
  assert.ok((controller.service.statistics().denied['not-a-node'] ?? 0) >= 5);
});

test('a node renews its own certificate, for as long as it is a node of the cluster and not revoked', async (t) => {
  const { api, controller, issuer, n1, n2 } = await place(t);
  const keys = await newKeyPair();
  const csr = await buildCsr(keys);
  const renewed = await issuer(n1).issueNode(csr, AbortSignal.timeout(5000));
  const verified = verifyPeer(
    parseCertificates(renewed.chain),
    controller.ca.bundle,
    { kind: 'node', name: 'n1' },
    Date.now(),
  );
  assert.ok(verified.ok, 'of itself, whatever it asks');
  await assert.rejects(issuer(n1).issueNode('no csr', AbortSignal.timeout(5000)), { code: 'IssueRefused' });
  await api.client.delete(kinds.Node, { name: 'n2' });
  await until(
    'gone',
    async () =>
      (await issuer(n2)
        .issueNode(csr, AbortSignal.timeout(5000))
        .catch(() => undefined)) === undefined,
  );
  await controller.ca.revoke({ spiffeIds: ['spiffe://cluster.local/node/n1'] });
  await assert.rejects(issuer(n1).issueNode(csr, AbortSignal.timeout(5000)), { code: 'IssueRefused' });
});

interface Reply {
  status: number;
  body: Record<string, unknown>;
}

function fetchJson(
  url: string,
  path: string,
  as: Credentials | undefined,
  ca: CertificateAuthority,
  init: { method?: string; body?: string } = {},
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const request = httpsRequest(
      new URL(path, url),
      { method: init.method ?? 'GET', ca: toPem(ca.bundle.roots), cert: as?.chain, key: as?.privateKey, agent: false },
      (response) => {
        let text = '';
        response.on('data', (chunk: Buffer) => {
          text += chunk.toString();
        });
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body: JSON.parse(text) }));
      },
    );
    request.on('error', reject);
    request.end(init.body);
  });
}

test('requests that are none: a status, a code, and the next request is served', async (t) => {
  const { url, ca, n1, issuer, pod } = await place(t);
  const web = await pod('web', 'n1');
  const post = (body: string) => fetchJson(url, '/v1/svid', n1, ca, { method: 'POST', body });
  for (const [body, status, code] of [
    ['', 400, 'bad-request'],
    ['{', 400, 'bad-request'],
    ['null', 403, 'bad-request'],
    ['{}', 403, 'bad-request'],
    ['x'.repeat(100_000), 400, 'bad-request'],
    [JSON.stringify({ pod: {}, extra: 1 }), 403, 'bad-request'],
  ] as const) {
    const reply = await post(body);
    assert.deepEqual([reply.status, reply.body.code], [status, code], body.slice(0, 50));
  }
  assert.equal((await fetchJson(url, '/v1/other', n1, ca)).status, 404);
  assert.equal((await fetchJson(url, '/v1/bundle?after=x&wait=y', n1, ca)).status, 200);
  assert.equal(await reason(ask(issuer(n1), web)), 'signed');
});

test('an administrator rotates the root; nodes hear of it at once, and of revocations', async (t) => {
  const { url, ca, n1, issuer, controller, pod } = await place(t);
  const admin = await ca.issueClient('admin');
  const web = await pod('web', 'n1');
  const step = (name: string, body?: string) =>
    fetchJson(url, `/v1/ca/${name}`, admin, ca, { method: 'POST', ...(body === undefined ? {} : { body }) });
  assert.equal((await fetchJson(url, '/v1/ca/prepare', n1, ca, { method: 'POST' })).status, 403);
  assert.equal((await step('activate')).status, 409);

  const stop = new AbortController();
  t.after(() => stop.abort());
  const bundles = new BundleStore(ca.bundle);
  const node = issuer(n1);
  void watchBundle(node, bundles, { logger: silent }, stop.signal);
  await wait(50);
  assert.equal((await step('prepare')).status, 200);
  await until('the new root', () => bundles.current.roots.length === 2);
  assert.equal((await step('activate')).status, 200);
  const { chain } = await ask(node, web);
  assert.ok(verifyPeer(parseCertificates(chain), bundles.current, { kind: 'pod' }, Date.now()).ok);
  assert.ok(!verifyPeer(parseCertificates(chain), ca.bundle, { kind: 'pod' }, Date.now()).ok);
  assert.equal((await step('retire')).status, 409);

  assert.equal((await step('revoke', '{"podUids":"all"}')).status, 400);
  assert.equal((await step('revoke', JSON.stringify({ podUids: [web.metadata.uid] }))).status, 200);
  await until('the revocation', () => bundles.current.revocations.podUids.has(web.metadata.uid));
  assert.equal(await reason(ask(node, web)), 'revoked');
  const shown = await fetchJson(url, '/v1/ca', admin, ca);
  assert.equal(shown.body.sequence, controller.ca.bundle.sequence);
  assert.deepEqual(shown.body.denied, { revoked: 1 });
});

test('while the API is away nothing is signed; afterwards all is as before', async (t) => {
  const { api, issuer, n1, pod } = await place(t);
  const web = await pod('web', 'n1');
  const node = issuer(n1);
  await api.restart(async () => assert.equal(await reason(ask(node, web)), 'IssuerUnreachable'));
  await until('signing again', async () => (await reason(ask(node, web))) === 'signed');
});

test('a node’s store and the controller together keep a pod supplied', async (t) => {
  const { ca, issuer, n1, pod } = await place(t);
  const web = await pod('web', 'n1');
  const bundles = new BundleStore(ca.bundle);
  const store = new SvidStore({ lifetimeMs: 3000 }, { issuer: issuer(n1), bundles, logger: silent });
  t.after(() => store.close());
  const identity = {
    pod: { namespace: 'shop', name: 'web', uid: web.metadata.uid },
    serviceAccount: 'web',
    addresses: [parseIp('10.244.0.5')],
  };
  const first = await store.add(identity);
  await until('renewal', () => store.statistics().renewed >= 1);
  assert.ok((store.get(web.metadata.uid)?.notAfter ?? 0) > first.notAfter);
});
