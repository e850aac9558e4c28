import assert from 'node:assert/strict';
import { chmodSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { CertificateAuthority } from '../../src/identity/ca.ts';
import { parseCertificate, toPem } from '../../src/identity/certificate.ts';
import { buildCsr, verifyCsr } from '../../src/identity/csr.ts';
import { backdateMs } from '../../src/identity/sign.ts';
import { verifyPeer } from '../../src/identity/verify.ts';
import { newKeyPair } from '../../src/identity/x509.ts';
import { parseIp } from '../../src/model/address.ts';
import type { SpiffeId } from '../../src/model/identity.ts';
import { issueSvid, openssl, podIdentity, temporaryDirectory, trustDomain } from './fixtures.ts';

const code = (expected: string) => (error: unknown) => (error as { code?: string }).code === expected;
const minute = 60_000;

test('an SVID follows the X.509-SVID standard to the letter, as OpenSSL reads it', async (t) => {
  const directory = temporaryDirectory(t);
  const ca = await CertificateAuthority.open({ trustDomain });
  const svid = await issueSvid(ca, podIdentity('web'));
  const pem = join(directory, 'leaf.pem');
  const roots = join(directory, 'roots.pem');
  writeFileSync(pem, toPem(svid.chain));
  writeFileSync(roots, toPem(ca.bundle.roots));
  for (const purpose of ['sslserver', 'sslclient'])
    assert.match(openssl('verify', '-x509_strict', '-purpose', purpose, '-CAfile', roots, pem), /: OK/);
  const text = openssl('x509', '-in', pem, '-noout', '-text');
  assert.match(text, /Subject: serialNumber = web-0000-4000-8000-000000000000\n/);
  assert.match(text, /X509v3 Key Usage: critical\n\s+Digital Signature\n/);
  assert.match(text, /X509v3 Extended Key Usage: \n\s+TLS Web Server Authentication, TLS Web Client Authentication\n/);
  assert.match(text, /X509v3 Basic Constraints: critical\n\s+CA:FALSE\n/);
  assert.match(
    text,
    /Subject Alternative Name: \n\s+URI:spiffe:\/\/cluster.local\/ns\/shop\/sa\/web, IP Address:10.244.1.5, IP Address:FD00:10:244:1:0:0:0:5\n/,
  );
  assert.match(text, /ecdsa-with-SHA256/);
  assert.match(openssl('asn1parse', '-in', pem), /PRINTABLESTRING\s+:web-0000-4000-8000-000000000000/);
  const root = openssl('x509', '-in', roots, '-noout', '-text');
  assert.match(root, /X509v3 Key Usage: critical\n\s+Certificate Sign, CRL Sign\n/);
  assert.match(root, /X509v3 Basic Constraints: critical\n\s+CA:TRUE, pathlen:0\n/);
  assert.match(root, /URI:spiffe:\/\/cluster.local\n/);
});

test('a certificate starts before now, for clocks that differ, and lives an hour', async () => {
  const now = 1_800_000_000_000;
  const ca = await CertificateAuthority.open({ trustDomain, now: () => now });
  const { notBefore, notAfter } = await issueSvid(ca, podIdentity('web'));
  assert.equal(notBefore, now - backdateMs);
  assert.equal(notAfter, now + 60 * minute);
});

test('the CA signs only proper names of its own trust domain', async () => {
  const ca = await CertificateAuthority.open({ trustDomain });
  const csr = await buildCsr(await newKeyPair());
  const good = {
    spiffeId: `spiffe://${trustDomain}/ns/a/sa/b` as SpiffeId,
    podUid: 'u1',
    addresses: [parseIp('10.0.0.1')],
  };
  await ca.signSvid(csr, good);
  const bad = [
    { spiffeId: 'spiffe://elsewhere/ns/a/sa/b' as SpiffeId },
    { podUid: 'not a uid' },
    { podUid: '' },
    { addresses: [] },
    { addresses: [parseIp('10.0.0.1'), parseIp('10.0.0.2')] },
    { lifetimeMs: 25 * 60 * minute },
    { lifetimeMs: Number.NaN },
  ];
  for (const over of bad)
    await assert.rejects(ca.signSvid(csr, { ...good, ...over }), code('BadName'), JSON.stringify(over));
  await assert.rejects(
    ca.signSvid(csr, { ...good, spiffeId: `spiffe://${trustDomain}/node/n1` as SpiffeId }),
    code('InvalidSpiffeId'),
  );
  await assert.rejects(ca.issueNode('Node One'), code('BadName'));
});

test('a request without possession, of another key kind, or of garbage is refused', async (t) => {
  const directory = temporaryDirectory(t);
  const keys = await newKeyPair();
  const csr = await buildCsr(keys);
  assert.ok((await verifyCsr(csr)).equals(keys.publicKey));
  const der = Buffer.from(csr.replace(/-----[^-]+-----|\s/g, ''), 'base64');
  der[der.length - 1] = (der[der.length - 1] ?? 0) ^ 1;
  const pem = (bytes: Buffer) =>
    `-----BEGIN CERTIFICATE REQUEST-----\n${bytes.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`;
  await assert.rejects(verifyCsr(pem(der)), code('BadCsr'));
  for (const garbage of ['', 'hello', pem(Buffer.from('hello')), pem(der.subarray(0, 40)), 'x'.repeat(10_000)])
    await assert.rejects(verifyCsr(garbage), code('BadCsr'), garbage.slice(0, 40));
  const key = join(directory, 'k');
  for (const kind of [
    ['-algorithm', 'RSA'],
    ['-algorithm', 'ED25519'],
    ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-384'],
  ]) {
    openssl('genpkey', ...kind, '-out', key);
    await assert.rejects(
      verifyCsr(openssl('req', '-new', '-key', key, '-subj', '/CN=x')),
      code('BadCsr'),
      kind.join(' '),
    );
  }
});

test('node, server and client certificates say what the API and the controller read', async (t) => {
  const directory = temporaryDirectory(t);
  const ca = await CertificateAuthority.open({ trustDomain });
  const show = (pem: string) => {
    writeFileSync(join(directory, 'c.pem'), pem);
    return openssl('x509', '-in', join(directory, 'c.pem'), '-noout', '-text', '-nameopt', 'RFC2253');
  };
  const node = await ca.issueNode('node-1');
  assert.match(show(node.chain), /Subject: CN=system:node:node-1,O=system:nodes\n/);
  assert.match(show(node.chain), /URI:spiffe:\/\/cluster.local\/node\/node-1\n/);
  const verified = verifyPeer([node.certificate], ca.bundle, { kind: 'node' }, Date.now());
  assert.ok(verified.ok && verified.value.node === 'node-1');
  const server = await ca.issueServer({
    commonName: 'api',
    dnsNames: ['kubernetes'],
    addresses: [parseIp('10.96.0.1')],
  });
  assert.match(show(server.chain), /DNS:kubernetes, IP Address:10.96.0.1\n/);
  assert.match(show(server.chain), /Extended Key Usage: \n\s+TLS Web Server Authentication\n/);
  const admin = await ca.issueClient('admin');
  assert.match(show(admin.chain), /Subject: CN=admin,O=system:masters\n/);
  // Neither is anybody to a tunnel.
  for (const other of [server, admin])
    for (const kind of ['pod', 'node'] as const) {
      const refused = verifyPeer([other.certificate], ca.bundle, { kind }, Date.now());
      assert.equal(refused.ok ? 'accepted' : refused.reason.code, 'malformed');
    }
});

test('a CA comes back from its directory as it was; keys are for its owner only', async (t) => {
  const directory = temporaryDirectory(t);
  const first = await CertificateAuthority.open({ trustDomain, directory });
  const svid = await issueSvid(first, podIdentity('web'));
  await first.revoke({ podUids: ['gone'] });
  const second = await CertificateAuthority.open({ trustDomain, directory });
  assert.equal(toPem(second.bundle.roots), toPem(first.bundle.roots));
  assert.deepEqual([...second.bundle.revocations.podUids], ['gone']);
  assert.equal(second.bundle.sequence, first.bundle.sequence);
  assert.ok(verifyPeer(svid.chain, second.bundle, { kind: 'pod' }, Date.now()).ok);
  for (const name of readdirSync(directory)) assert.equal(statSync(join(directory, name)).mode & 0o077, 0, name);
  const key = readdirSync(directory).find((name) => name.endsWith('.key')) ?? '';
  chmodSync(join(directory, key), 0o644);
  await assert.rejects(CertificateAuthority.open({ trustDomain, directory }), code('CaDirectory'));
  chmodSync(join(directory, key), 0o600);
  await assert.rejects(CertificateAuthority.open({ trustDomain: 'elsewhere', directory }), code('CaDirectory'));
  const state = join(directory, 'ca.json');
  const text = readFileSync(state, 'utf8');
  writeFileSync(state, text.slice(0, 100));
  await assert.rejects(CertificateAuthority.open({ trustDomain, directory }), code('CaDirectory'));
});

test('a root is replaced with overlap: trusted before it signs, gone only after the last that the old one signed', async (t) => {
  const directory = temporaryDirectory(t);
  let now = 1_800_000_000_000;
  const clock = () => now;
  const ca = await CertificateAuthority.open({ trustDomain, directory, now: clock, overlapMs: 10 * minute });
  const old = await issueSvid(ca, podIdentity('web'));
  const before = ca.bundle;

  await assert.rejects(ca.activate(), code('CaState'));
  await ca.prepare();
  await assert.rejects(ca.prepare(), code('CaState'));
  await assert.rejects(ca.retire(), code('CaState'));
  const published = ca.bundle;
  assert.equal(published.roots.length, 2);
  assert.ok(published.sequence > before.sequence);
  // Prepared is not signing: a node that still has the old bundle believes what is signed now.
  const during = await issueSvid(ca, podIdentity('web'));
  assert.ok(verifyPeer(during.chain, before, { kind: 'pod' }, now).ok);

  now += 9 * minute;
  await assert.rejects(ca.activate(), code('CaState'));
  now += minute;
  await ca.activate();
  // The old key is destroyed, on disk too.
  assert.equal(readdirSync(directory).filter((name) => name.endsWith('.key')).length, 1);
  const fresh = await issueSvid(ca, podIdentity('web'));
  assert.equal(verifyPeer(fresh.chain, before, { kind: 'pod' }, now).ok, false);
  for (const svid of [old, during, fresh]) assert.ok(verifyPeer(svid.chain, published, { kind: 'pod' }, now).ok);

  await assert.rejects(ca.retire(), code('CaState'));
  now = during.notAfter;
  await assert.rejects(ca.retire(), code('CaState'));
  now = ca.roots.find((root) => root.status === 'previous')?.issuedUntil ?? 0;
  now += 1;
  const reloaded = await CertificateAuthority.open({ trustDomain, directory, now: clock });
  await reloaded.retire();
  assert.equal(reloaded.bundle.roots.length, 1);
  assert.ok(reloaded.bundle.sequence > published.sequence);
  const last = verifyPeer(old.chain, reloaded.bundle, { kind: 'pod' }, old.notAfter - 1);
  assert.equal(last.ok ? 'accepted' : last.reason.code, 'untrusted');
  assert.ok(verifyPeer((await issueSvid(reloaded, podIdentity('web'))).chain, published, { kind: 'pod' }, now).ok);
});

test('certificates that cannot be read are a typed error', () => {
  for (const input of ['', 'hello', Buffer.from([0x30, 0x82]), Buffer.alloc(100)])
    assert.throws(() => parseCertificate(input), code('BadCertificate'));
});
