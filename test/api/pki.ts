import 'reflect-metadata';
import { randomBytes, webcrypto } from 'node:crypto';
import {
  BasicConstraintsExtension,
  cryptoProvider,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type JsonGeneralName,
  PemConverter,
  SubjectAlternativeNameExtension,
  type X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';

cryptoProvider.set(webcrypto);

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const dayMs = 24 * 60 * 60 * 1000;

export interface Pem {
  readonly cert: string;
  readonly key: string;
}

/** A root for one test run, and whatever certificates it needs. */
export class TestPki {
  readonly #certificate: X509Certificate;
  readonly #keys: webcrypto.CryptoKeyPair;

  private constructor(certificate: X509Certificate, keys: webcrypto.CryptoKeyPair) {
    this.#certificate = certificate;
    this.#keys = keys;
  }

  static async create(): Promise<TestPki> {
    const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
    const certificate = await X509CertificateGenerator.createSelfSigned({
      ...validity(),
      serialNumber: serial(),
      name: 'CN=Myelin test root',
      keys,
      signingAlgorithm: algorithm,
      extensions: [new BasicConstraintsExtension(true, undefined, true)],
    });
    return new TestPki(certificate, keys);
  }

  get ca(): string {
    return this.#certificate.toString('pem');
  }

  server(): Promise<Pem> {
    const names: JsonGeneralName[] = [
      { type: 'dns', value: 'localhost' },
      { type: 'ip', value: '127.0.0.1' },
    ];
    return this.issue([{ CN: ['api'] }], names);
  }

  admin(): Promise<Pem> {
    return this.issue([{ CN: ['admin'] }, { O: ['system:masters'] }]);
  }

  node(name: string): Promise<Pem> {
    const uri: JsonGeneralName = { type: 'url', value: `spiffe://cluster.local/node/${name}` };
    return this.issue([{ CN: [`system:node:${name}`] }, { O: ['system:nodes'] }], [uri]);
  }

  /** @param lifetimeMs From now; negative for one that has expired. */
  async issue(subject: Record<string, string[]>[], names: JsonGeneralName[] = [], lifetimeMs = dayMs): Promise<Pem> {
    const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
    const certificate = await X509CertificateGenerator.create({
      ...validity(lifetimeMs),
      serialNumber: serial(),
      issuer: this.#certificate.subject,
      subject,
      publicKey: keys.publicKey,
      signingKey: this.#keys.privateKey,
      signingAlgorithm: algorithm,
      extensions: [
        new ExtendedKeyUsageExtension([ExtendedKeyUsage.clientAuth, ExtendedKeyUsage.serverAuth]),
        ...(names.length > 0 ? [new SubjectAlternativeNameExtension(names)] : []),
      ],
    });
    const key = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey);
    return { cert: certificate.toString('pem'), key: PemConverter.encode(key, 'PRIVATE KEY') };
  }
}

function validity(lifetimeMs = dayMs) {
  const now = Date.now();
  return { notBefore: new Date(now - 2 * dayMs), notAfter: new Date(now + lifetimeMs) };
}

function serial(): string {
  return `01${randomBytes(8).toString('hex')}`;
}
