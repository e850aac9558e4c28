import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { pino } from 'pino';
import { bundleDocument } from '../../src/identity/bundle.ts';
import type { CertificateAuthority } from '../../src/identity/ca.ts';
import { buildCsr } from '../../src/identity/csr.ts';
import { podSpiffeId } from '../../src/identity/names.ts';
import type { Issued, IssueRequest, Issuer, PodIdentity, Svid } from '../../src/identity/svid.ts';
import { newKeyPair } from '../../src/identity/x509.ts';
import { parseIp } from '../../src/model/address.ts';

export const trustDomain = 'cluster.local';
export const silent = pino({ level: 'silent' });

/** A directory of this test's own, removed with it. */
export function temporaryDirectory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), `myelin-identity-${process.pid}-`));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

export function podIdentity(name: string, over: Partial<PodIdentity> & { uid?: string } = {}): PodIdentity {
  return {
    pod: { namespace: 'shop', name, uid: over.uid ?? `${name}-0000-4000-8000-000000000000` },
    serviceAccount: over.serviceAccount ?? name,
    addresses: over.addresses ?? [parseIp('10.244.1.5'), parseIp('fd00:10:244:1::5')],
  };
}

/** A certificate with its key, straight from the CA. */
export async function issueSvid(ca: CertificateAuthority, identity: PodIdentity, lifetimeMs?: number): Promise<Svid> {
  const keys = await newKeyPair();
  const { namespace, uid } = identity.pod;
  const spiffeId = podSpiffeId({ trustDomain: ca.trustDomain, namespace, serviceAccount: identity.serviceAccount });
  const leaf = await ca.signSvid(await buildCsr(keys), {
    spiffeId,
    podUid: uid,
    addresses: identity.addresses,
    ...(lifetimeMs === undefined ? {} : { lifetimeMs }),
  });
  const { notBefore, notAfter, addresses } = leaf;
  return { spiffeId, podUid: uid, addresses, chain: [leaf], privateKey: keys.privateKey, notBefore, notAfter };
}

/** An issuer without a network: signs whatever is asked. */
export class DirectIssuer implements Issuer {
  readonly requests: IssueRequest[] = [];
  readonly #ca: CertificateAuthority;
  /** What the next calls fail with, one each. */
  readonly failures: Error[] = [];

  constructor(ca: CertificateAuthority) {
    this.#ca = ca;
  }

  async issue(request: IssueRequest): Promise<Issued> {
    this.requests.push(request);
    const failure = this.failures.shift();
    if (failure !== undefined) throw failure;
    const { namespace, uid } = request.pod;
    const leaf = await this.#ca.signSvid(request.csr, {
      spiffeId: podSpiffeId({
        trustDomain: this.#ca.trustDomain,
        namespace,
        serviceAccount: request.serviceAccount,
      }),
      podUid: uid,
      addresses: request.addresses,
      ...(request.lifetimeMs === undefined ? {} : { lifetimeMs: request.lifetimeMs }),
    });
    return { chain: leaf.native.toString(), bundle: bundleDocument(this.#ca.bundle) };
  }
}

export function openssl(...args: string[]): string {
  return execFileSync('openssl', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/**
 * Signs a certificate with OpenSSL and the CA's key: the other maker of certificates, which puts into them what ours
 * never would.
 * @param extensions Lines of an OpenSSL extension section.
 */
export function opensslLeaf(
  directory: string,
  ca: { certificate: string; key: string },
  extensions: readonly string[],
  options: { subject?: string; keyArguments?: readonly string[]; days?: number } = {},
): string {
  const file = (name: string) => join(directory, name);
  const subject = options.subject ?? '/serialNumber=web-0000-4000-8000-000000000000';
  openssl(
    'genpkey',
    ...(options.keyArguments ?? ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256']),
    '-out',
    file('leaf.key'),
  );
  openssl('req', '-new', '-key', file('leaf.key'), '-subj', subject, '-out', file('leaf.csr'));
  writeFileSync(file('leaf.cnf'), `[leaf]\n${extensions.join('\n')}\n`);
  writeFileSync(file('ca.pem'), ca.certificate);
  writeFileSync(file('ca.key'), ca.key, { mode: 0o600 });
  openssl(
    'x509',
    '-req',
    '-in',
    file('leaf.csr'),
    '-CA',
    file('ca.pem'),
    '-CAkey',
    file('ca.key'),
    '-days',
    String(options.days ?? 1),
    '-extfile',
    file('leaf.cnf'),
    '-extensions',
    'leaf',
    '-out',
    file('leaf.pem'),
  );
  return openssl('x509', '-in', file('leaf.pem'));
}
