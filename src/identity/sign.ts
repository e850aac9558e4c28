import { createHash, type KeyObject } from 'node:crypto';
import { type ParsedCertificate, parseCertificate } from './certificate.ts';
import { newKeyPair, newSerialNumber, signingAlgorithm, toCryptoKeys, x509 } from './x509.ts';

/** How far a certificate starts in the past: the CA’s clock may be ahead by five minutes and a verifier’s behind by as much. */
export const backdateMs = 10 * 60_000;
const rootMs = 10 * 365 * 86_400_000;

/** A root with its key. */
export interface Root {
  readonly id: string;
  /** PEM. */
  readonly certificate: string;
  readonly privateKey: KeyObject;
}

/** What a certificate says of its holder. */
export interface Leaf {
  readonly subject: x509.JsonNameParams;
  readonly names: x509.JsonGeneralNames;
  readonly usages: readonly x509.ExtendedKeyUsage[];
  readonly lifetimeMs: number;
}

/** Makes a self-signed root of the trust domain, with a new key. @param now Unix milliseconds. */
export async function newRoot(trustDomain: string, now: number): Promise<Root> {
  const keys = await newKeyPair();
  const id = createHash('sha256')
    .update(keys.publicKey.export({ type: 'spki', format: 'der' }))
    .digest('hex')
    .slice(0, 16);
  const pair = toCryptoKeys(keys);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: newSerialNumber(),
    // The id keeps two roots' names apart, so that a path is found by name even while both are trusted.
    name: [{ O: [trustDomain] }, { CN: [`Myelin root ${id}`] }],
    keys: pair,
    signingAlgorithm,
    notBefore: new Date(now - backdateMs),
    notAfter: new Date(now + rootMs),
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      // A signing certificate is an SVID itself, of the trust domain, without a path (X.509-SVID section 3.2).
      new x509.SubjectAlternativeNameExtension([{ type: 'url', value: `spiffe://${trustDomain}` }]),
      await x509.SubjectKeyIdentifierExtension.create(pair.publicKey),
    ],
  });
  return { id, certificate: certificate.toString('pem'), privateKey: keys.privateKey };
}

/** Signs a certificate that signs nothing itself. @param now Unix milliseconds. */
export async function signLeaf(
  root: Omit<Root, 'id'>,
  publicKey: KeyObject,
  leaf: Leaf,
  now: number,
): Promise<ParsedCertificate> {
  const issuer = new x509.X509Certificate(root.certificate);
  const subjectKey = publicKey.toCryptoKey(signingAlgorithm, true, ['verify']);
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: newSerialNumber(),
    subject: new x509.Name(leaf.subject),
    issuer: issuer.subjectName,
    publicKey: subjectKey,
    signingKey: root.privateKey.toCryptoKey(signingAlgorithm, false, ['sign']),
    signingAlgorithm,
    notBefore: new Date(now - backdateMs),
    notAfter: new Date(now + leaf.lifetimeMs),
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([...leaf.usages]),
      // Not critical, because the subject is not empty (RFC 5280 section 4.2.1.6, X.509-SVID section 3.1).
      ...(leaf.names.length > 0 ? [new x509.SubjectAlternativeNameExtension(leaf.names)] : []),
      await x509.SubjectKeyIdentifierExtension.create(subjectKey),
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
    ],
  });
  return parseCertificate(Buffer.from(certificate.rawData));
}
