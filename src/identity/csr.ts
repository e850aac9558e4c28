import type { KeyObject } from 'node:crypto';
import { createPublicKey } from 'node:crypto';
import { messageOf } from './certificate.ts';
import { IdentityError } from './error.ts';
import { type KeyPair, signingAlgorithm, toCryptoKeys, x509 } from './x509.ts';

/** A P-256 request is about 400 characters; ten times that leaves room for other issuers' attributes. */
const largestRequest = 4096;

/**
 * Makes a PKCS#10 request. It names nobody: it only proves that its sender holds the key, and the CA takes the name
 * from what it checked itself.
 * @returns PEM.
 */
export async function buildCsr(keys: KeyPair): Promise<string> {
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    keys: toCryptoKeys(keys),
    signingAlgorithm,
  });
  return request.toString('pem');
}

/**
 * Checks possession of the key (the request is signed with it) and its kind.
 * @returns The public key to certify.
 * @throws {IdentityError} `BadCsr`
 */
export async function verifyCsr(pem: string): Promise<KeyObject> {
  if (pem.length > largestRequest) throw new IdentityError('BadCsr', 'the certificate request is over 4 KiB');
  let possessed: boolean;
  let key: KeyObject;
  try {
    const request = new x509.Pkcs10CertificateRequest(pem);
    key = createPublicKey({ key: Buffer.from(request.publicKey.rawData), format: 'der', type: 'spki' });
    possessed = await request.verify();
  } catch (cause) {
    throw new IdentityError('BadCsr', `the certificate request cannot be read: ${messageOf(cause)}`, { cause });
  }
  if (key.asymmetricKeyType !== 'ec' || key.asymmetricKeyDetails?.namedCurve !== 'prime256v1')
    throw new IdentityError('BadCsr', 'the certificate request has a key that is not ECDSA P-256');
  if (!possessed)
    throw new IdentityError('BadCsr', 'the certificate request is not signed with the key that it presents');
  return key;
}
