// @peculiar/x509 resolves its parts by decorators and throws unless the metadata they need is loaded before it.
import 'reflect-metadata';
import { generateKeyPair, type KeyObject, randomBytes, type webcrypto } from 'node:crypto';
import { promisify } from 'node:util';
import * as x509 from '@peculiar/x509';

export { x509 };

/** Every key that Myelin makes: ECDSA on P-256 with SHA-256. */
export const signingAlgorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

/** Object identifiers of RFC 5280 that are compared here. */
export const oid = {
  subjectSerialNumber: '2.5.4.5',
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyIdentifier: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
} as const;

export interface KeyPair {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

const makeKeyPair = promisify(generateKeyPair);

/** Makes a P-256 key off the event loop. It lives in memory only, unless its holder exports it. */
export async function newKeyPair(): Promise<KeyPair> {
  return await makeKeyPair('ec', { namedCurve: 'P-256' });
}

/** The same pair in the form that the certificate library takes; the private half cannot be exported again from it. */
export function toCryptoKeys(keys: KeyPair): webcrypto.CryptoKeyPair {
  return {
    privateKey: keys.privateKey.toCryptoKey(signingAlgorithm, false, ['sign']),
    publicKey: keys.publicKey.toCryptoKey(signingAlgorithm, true, ['verify']),
  };
}

/** @returns 16 random bytes in hexadecimal, positive and not zero (RFC 5280 section 4.1.2.2 wants at most 20). */
export function newSerialNumber(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return bytes.toString('hex');
}
