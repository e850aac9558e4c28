import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { bundleFromPem, type TrustBundle } from '../../src/identity/bundle.ts';
import { CertificateAuthority } from '../../src/identity/ca.ts';
import { type ParsedCertificate, parseCertificate, toPem } from '../../src/identity/certificate.ts';
import { revocationsFrom } from '../../src/identity/revocation.ts';
import type { Svid } from '../../src/identity/svid.ts';
import { type PeerExpectation, type RefusalReason, refusalReasons, verifyPeer } from '../../src/identity/verify.ts';
import { parseIp } from '../../src/model/address.ts';
import type { SpiffeId } from '../../src/model/identity.ts';
import { issueSvid, openssl, opensslLeaf, podIdentity, trustDomain } from './fixtures.ts';

let directory: string;
let ca: CertificateAuthority;
let root: { certificate: string; key: string };
let svid: Svid;

before(async () => {
  directory = mkdtempSync(join(tmpdir(), `myelin-verify-${process.pid}-`));
  ca = await CertificateAuthority.open({ trustDomain, directory });
  const key = readdirSync(directory).find((name) => name.endsWith('.key')) ?? '';
  root = { certificate: toPem(ca.bundle.roots), key: readFileSync(join(directory, key), 'utf8') };
  svid = await issueSvid(ca, podIdentity('web'));
});
after(() => rmSync(directory, { recursive: true, force: true }));

function verdict(
  chain: readonly ParsedCertificate[],
  expectation: PeerExpectation = { kind: 'pod' },
  bundle: TrustBundle = ca.bundle,
  now = Date.now(),
): RefusalReason | 'accepted' {
  const result = verifyPeer(chain, bundle, expectation, now);
  return result.ok ? 'accepted' : result.reason.code;
}

const spiffeId = `spiffe://${trustDomain}/ns/shop/sa/web` as SpiffeId;
const podUid = 'web-0000-4000-8000-000000000000';

test('a pod is accepted as exactly what it is', () => {
  const addresses = [parseIp('fd00:10:244:1::5'), parseIp('10.244.1.5')];
  const result = verifyPeer(svid.chain, ca.bundle, { kind: 'pod', spiffeId, podUid, addresses }, Date.now());
  assert.ok(result.ok);
  assert.equal(result.value.spiffeId, spiffeId);
  assert.equal(result.value.podUid, podUid);
  assert.deepEqual([...result.value.addresses].sort(), ['10.244.1.5', 'fd00:10:244:1::5']);
  assert.equal(result.value.notAfter, svid.notAfter);
});

test('every reason to refuse is given for its cause', async () => {
  const foreignCa = await CertificateAuthority.open({ trustDomain: 'elsewhere' });
  const impostorCa = await CertificateAuthority.open({ trustDomain });
  const foreign = await issueSvid(foreignCa, podIdentity('web'));
  const impostor = await issueSvid(impostorCa, podIdentity('web'));
  const node = await ca.issueNode('n1');
  const revoked = (what: Parameters<typeof revocationsFrom>[0]) => ({
    ...ca.bundle,
    revocations: revocationsFrom(what),
  });
  const nothing = { serials: [], podUids: [], spiffeIds: [] };
  const serial = svid.chain[0]?.serialNumber ?? '';
  const pod = (over: Partial<Extract<PeerExpectation, { kind: 'pod' }>>) =>
    verdict(svid.chain, { kind: 'pod', ...over });
  const cases: [RefusalReason, ReturnType<typeof verdict>][] = [
    ['missing', verdict([])],
    ['malformed', verdict(ca.bundle.roots)],
    ['foreign-domain', verdict(foreign.chain)],
    ['foreign-domain', verdict([...foreign.chain, ...foreignCa.bundle.roots])],
    ['untrusted', verdict(impostor.chain)],
    // A root that the peer brings along is no root.
    ['untrusted', verdict([...impostor.chain, ...impostorCa.bundle.roots])],
    ['not-yet-valid', verdict(svid.chain, { kind: 'pod' }, ca.bundle, svid.notBefore - 1)],
    ['expired', verdict(svid.chain, { kind: 'pod' }, ca.bundle, svid.notAfter + 1)],
    ['revoked', verdict(svid.chain, { kind: 'pod' }, revoked({ ...nothing, serials: [`00${serial.toUpperCase()}`] }))],
    ['revoked', verdict(svid.chain, { kind: 'pod' }, revoked({ ...nothing, podUids: [podUid] }))],
    ['revoked', verdict(svid.chain, { kind: 'pod' }, revoked({ ...nothing, spiffeIds: [spiffeId] }))],
    ['wrong-identity', pod({ spiffeId: `spiffe://${trustDomain}/ns/shop/sa/other` as SpiffeId })],
    ['wrong-identity', verdict(svid.chain, { kind: 'node' })],
    ['wrong-identity', verdict([node.certificate])],
    ['wrong-identity', verdict([node.certificate], { kind: 'node', name: 'n2' })],
    ['wrong-uid', pod({ podUid: 'web-0000-4000-8000-000000000001' })],
    ['wrong-address', pod({ addresses: [parseIp('10.244.1.5'), parseIp('10.244.1.6')] })],
  ];
  for (const [expected, found] of cases) assert.equal(found, expected);
  assert.deepEqual(new Set(cases.map(([reason]) => reason)), new Set(Object.keys(refusalReasons)));
  assert.equal(verdict([node.certificate], { kind: 'node', name: 'n1' }), 'accepted');
  assert.equal(verdict(svid.chain, { kind: 'pod' }, ca.bundle, svid.notAfter), 'accepted');
});

/** Leaves made by OpenSSL with our root's key: correctly signed, and wrong in one thing each (X.509-SVID sections 2 to 5). */
const good = {
  bc: 'basicConstraints=critical,CA:FALSE',
  ku: 'keyUsage=critical,digitalSignature',
  eku: 'extendedKeyUsage=serverAuth,clientAuth',
  san: `subjectAltName=URI:${spiffeId},IP:10.244.1.5`,
};

test('what OpenSSL makes to the standard is accepted', () => {
  for (const variant of [good, { ...good, eku: '' }, { ...good, san: `${good.san},DNS:web` }, { ...good, bc: '' }]) {
    const leaf = parseCertificate(opensslLeaf(directory, root, Object.values(variant)));
    assert.equal(verdict([leaf], { kind: 'pod', spiffeId, podUid }), 'accepted', JSON.stringify(variant));
  }
});

test('a correctly signed certificate that is no SVID is refused', () => {
  const variants: [string, Partial<typeof good>][] = [
    ['no name', { san: '' }],
    ['only a DNS name', { san: 'subjectAltName=DNS:web' }],
    ['two URIs', { san: `subjectAltName=URI:${spiffeId},URI:spiffe://${trustDomain}/ns/shop/sa/other` }],
    ['another scheme', { san: 'subjectAltName=URI:https://cluster.local/ns/shop/sa/web' }],
    ['no path', { san: `subjectAltName=URI:spiffe://${trustDomain}` }],
    ['root path', { san: `subjectAltName=URI:spiffe://${trustDomain}/` }],
    ['another path', { san: `subjectAltName=URI:spiffe://${trustDomain}/ns/shop/web` }],
    ['path with a tail', { san: `subjectAltName=URI:${spiffeId}/x` }],
    ['trailing slash', { san: `subjectAltName=URI:${spiffeId}/` }],
    ['query', { san: `subjectAltName=URI:${spiffeId}?a=b` }],
    ['upper-case scheme', { san: `subjectAltName=URI:SPIFFE://${trustDomain}/ns/shop/sa/web` }],
    ['user in the authority', { san: `subjectAltName=URI:spiffe://me@${trustDomain}/ns/shop/sa/web` }],
    ['port in the authority', { san: `subjectAltName=URI:spiffe://${trustDomain}:1/ns/shop/sa/web` }],
    ['a CA', { bc: 'basicConstraints=critical,CA:TRUE' }],
    ['may sign certificates', { ku: 'keyUsage=critical,digitalSignature,keyCertSign' }],
    ['may sign CRLs', { ku: 'keyUsage=critical,digitalSignature,cRLSign' }],
    ['may not sign', { ku: 'keyUsage=critical,keyEncipherment' }],
    ['key usage not critical', { ku: 'keyUsage=digitalSignature' }],
    ['no key usage', { ku: '' }],
    ['server only', { eku: 'extendedKeyUsage=serverAuth' }],
    ['client only', { eku: 'extendedKeyUsage=clientAuth' }],
    ['unknown critical extension', { eku: '1.2.3.4=critical,ASN1:UTF8String:x' }],
  ];
  for (const [name, over] of variants) {
    const leaf = parseCertificate(opensslLeaf(directory, root, Object.values({ ...good, ...over })));
    const result = verdict([leaf]);
    assert.ok(result === 'malformed', `${name}: ${result}`);
  }
});

test('weak and foreign kinds of keys are refused, strong ones accepted', () => {
  const kinds: [string[], RefusalReason | 'accepted'][] = [
    [['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:1024'], 'malformed'],
    [['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'], 'accepted'],
    [['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:secp256k1'], 'malformed'],
    [['-algorithm', 'ED25519'], 'accepted'],
  ];
  for (const [keyArguments, expected] of kinds) {
    const leaf = parseCertificate(opensslLeaf(directory, root, Object.values(good), { keyArguments }));
    assert.equal(verdict([leaf]), expected, keyArguments.join(' '));
  }
});

test('a pod’s certificate without one UID proves no pod', () => {
  for (const subject of ['/CN=web', '/serialNumber=a/serialNumber=b']) {
    const leaf = parseCertificate(opensslLeaf(directory, root, Object.values(good), { subject }));
    assert.equal(verdict([leaf]), 'wrong-uid', subject);
  }
});

test('an intermediate is followed only where its issuer lets it sign', () => {
  const file = (name: string) => join(directory, name);
  const makeCa = (name: string, extensions: string[], signer?: string) => {
    openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', file(`${name}.key`));
    writeFileSync(file(`${name}.cnf`), `[req]\ndistinguished_name=dn\n[dn]\n[ca]\n${extensions.join('\n')}\n`);
    const request = [
      'req',
      '-new',
      '-key',
      file(`${name}.key`),
      '-subj',
      `/CN=${name}`,
      '-config',
      file(`${name}.cnf`),
    ];
    if (signer === undefined)
      openssl(...request, '-x509', '-days', '2', '-extensions', 'ca', '-out', file(`${name}.pem`));
    else {
      openssl(...request, '-out', file(`${name}.csr`));
      openssl(
        'x509',
        '-req',
        '-in',
        file(`${name}.csr`),
        '-CA',
        file(`${signer}.pem`),
        '-CAkey',
        file(`${signer}.key`),
        '-days',
        '2',
        '-extfile',
        file(`${name}.cnf`),
        '-extensions',
        'ca',
        '-out',
        file(`${name}.pem`),
      );
    }
    return { certificate: readFileSync(file(`${name}.pem`), 'utf8'), key: readFileSync(file(`${name}.key`), 'utf8') };
  };
  const mayCa = ['basicConstraints=critical,CA:TRUE', 'keyUsage=critical,keyCertSign'];
  const top = makeCa('top', mayCa);
  const middle = makeCa('middle', mayCa, 'top');
  const lower = makeCa('lower', mayCa, 'middle');
  const short = makeCa(
    'short',
    ['basicConstraints=critical,CA:TRUE,pathlen:0', 'keyUsage=critical,keyCertSign'],
    'top',
  );
  const tooDeep = makeCa('toodeep', mayCa, 'short');
  const noCa = makeCa('noca', ['basicConstraints=critical,CA:FALSE', 'keyUsage=critical,digitalSignature'], 'top');
  const noSign = makeCa('nosign', ['basicConstraints=critical,CA:TRUE', 'keyUsage=critical,cRLSign'], 'top');
  const bundle = bundleFromPem(trustDomain, top.certificate);
  const chain = (...cas: { certificate: string; key: string }[]) => {
    const [signer = top] = cas;
    return [opensslLeaf(directory, signer, Object.values(good)), ...cas.map((each) => each.certificate)].map(
      parseCertificate,
    );
  };
  const check = (certificates: ParsedCertificate[]) => verdict(certificates, { kind: 'pod' }, bundle);
  assert.equal(check(chain()), 'accepted');
  assert.equal(check(chain(middle)), 'accepted');
  assert.equal(check(chain(lower, middle)), 'accepted');
  const [leaf, one, two] = chain(lower, middle);
  assert.ok(leaf && one && two);
  assert.equal(check([leaf, two, one]), 'accepted', 'the order of intermediates does not matter');
  assert.equal(check([leaf, one]), 'untrusted', 'a gap');
  assert.equal(check(chain(short)), 'accepted');
  assert.equal(check(chain(tooDeep, short)), 'untrusted', 'path length');
  assert.equal(check(chain(noCa)), 'untrusted', 'signed by a leaf');
  assert.equal(check(chain(noSign)), 'untrusted', 'signed by a key that may not');
  const [, intermediate] = chain(middle);
  assert.ok(intermediate);
  const revoked = {
    ...bundle,
    revocations: revocationsFrom({ serials: [intermediate.serialNumber], podUids: [], spiffeIds: [] }),
  };
  assert.equal(verdict(chain(middle), { kind: 'pod' }, revoked), 'revoked');
});

test('a certificate with any bit changed is not accepted as what it was', () => {
  const der = svid.chain[0]?.der ?? Buffer.alloc(0);
  fc.assert(
    fc.property(fc.nat(der.length * 8 - 1), (bit) => {
      const changed = Buffer.from(der);
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      let parsed: ParsedCertificate;
      try {
        parsed = parseCertificate(changed);
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'BadCertificate');
        return;
      }
      assert.notEqual(verdict([parsed], { kind: 'pod', podUid }), 'accepted');
    }),
    { numRuns: 400 },
  );
});

test('random bytes never crash the parser', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), fc.boolean(), (bytes, asPrefix) => {
      const der = svid.chain[0]?.der ?? Buffer.alloc(0);
      const input = asPrefix ? Buffer.concat([der.subarray(0, bytes.length % der.length), bytes]) : bytes;
      try {
        parseCertificate(input);
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'BadCertificate');
      }
    }),
    { numRuns: 300 },
  );
});
