import { createHash, type KeyObject, X509Certificate } from 'node:crypto';
import { type IpAddress, tryParseIp } from '../model/address.ts';
import { MyelinError } from '../model/error.ts';
import { IdentityError } from './error.ts';
import { oid, x509 } from './x509.ts';

/** What decisions need of a certificate, read once and strictly. Times are Unix milliseconds. */
export interface ParsedCertificate {
  readonly der: Buffer;
  /** SHA-256 of the DER form, hexadecimal. */
  readonly fingerprint: string;
  /** Lower-case hexadecimal without leading zeros. */
  readonly serialNumber: string;
  readonly notBefore: number;
  readonly notAfter: number;
  readonly subject: {
    readonly commonNames: readonly string[];
    readonly organizations: readonly string[];
    readonly serialNumbers: readonly string[];
  };
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
  readonly addresses: readonly IpAddress[];
  readonly ca: boolean;
  readonly pathLength: number | undefined;
  readonly keyUsage: { readonly flags: number; readonly critical: boolean } | undefined;
  readonly extendedKeyUsage: readonly string[] | undefined;
  /** Critical extensions that nothing here understands: RFC 5280 section 4.2 refuses the certificate for them. */
  readonly unknownCritical: readonly string[];
  readonly publicKey: KeyObject;
  /** OpenSSL's reading of the same bytes, which checks signatures. */
  readonly native: X509Certificate;
}

const understood: ReadonlySet<string> = new Set([
  oid.subjectKeyIdentifier,
  oid.authorityKeyIdentifier,
  oid.keyUsage,
  oid.extendedKeyUsage,
  oid.subjectAltName,
  oid.basicConstraints,
]);
const largestCertificate = 8192;

/**
 * Reads one certificate, from DER or PEM (the first block of it).
 * @throws {IdentityError} `BadCertificate` where it does not parse, repeats an extension (RFC 5280 section 4.2), or
 *   names an address that is none.
 */
export function parseCertificate(input: Uint8Array | string): ParsedCertificate {
  try {
    const native = new X509Certificate(input);
    const der = native.raw;
    if (der.length > largestCertificate) throw new IdentityError('BadCertificate', 'the certificate is over 8 KiB');
    return read(native, der);
  } catch (cause) {
    if (cause instanceof MyelinError) throw cause;
    throw new IdentityError('BadCertificate', `the certificate cannot be read: ${messageOf(cause)}`, { cause });
  }
}

/** Reads every certificate of a PEM text, in its order. @throws {IdentityError} `BadCertificate`, also where there is none. */
export function parseCertificates(pem: string): ParsedCertificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0) throw new IdentityError('BadCertificate', 'the text holds no PEM certificate');
  return blocks.map((block) => parseCertificate(block));
}

/** The certificates as one PEM text, in their order. */
export function toPem(certificates: readonly ParsedCertificate[]): string {
  return certificates.map((certificate) => certificate.native.toString()).join('');
}

/** Answers that were worked out before, for as long as both certificates are kept: they never change. */
const signed = new WeakMap<ParsedCertificate, WeakMap<ParsedCertificate, boolean>>();

/** Whether `issuer` signed `certificate`: the names match (RFC 5280 section 4.1.2.4) and the signature verifies. */
export function isIssuedBy(certificate: ParsedCertificate, issuer: ParsedCertificate): boolean {
  const answers = signed.get(certificate) ?? new WeakMap<ParsedCertificate, boolean>();
  signed.set(certificate, answers);
  const known = answers.get(issuer);
  if (known !== undefined) return known;
  const answer = certificate.native.checkIssued(issuer.native) && certificate.native.verify(issuer.publicKey);
  answers.set(issuer, answer);
  return answer;
}

function read(native: X509Certificate, der: Buffer): ParsedCertificate {
  const parsed = new x509.X509Certificate(der);
  const types = parsed.extensions.map((extension) => extension.type);
  const repeated = types.find((type, i) => types.indexOf(type) !== i);
  if (repeated !== undefined)
    throw new IdentityError('BadCertificate', `the certificate has the extension ${repeated} twice`);
  const names = parsed.getExtension(x509.SubjectAlternativeNameExtension)?.names.items ?? [];
  const valuesOf = (type: string) => names.filter((name) => name.type === type).map((name) => name.value);
  const constraints = parsed.getExtension(x509.BasicConstraintsExtension);
  const usage = parsed.getExtension(x509.KeyUsagesExtension);
  return {
    der,
    fingerprint: createHash('sha256').update(der).digest('hex'),
    serialNumber: canonicalSerial(parsed.serialNumber),
    notBefore: parsed.notBefore.getTime(),
    notAfter: parsed.notAfter.getTime(),
    subject: {
      commonNames: parsed.subjectName.getField('CN'),
      organizations: parsed.subjectName.getField('O'),
      serialNumbers: parsed.subjectName.getField(oid.subjectSerialNumber),
    },
    uris: valuesOf('url'),
    dnsNames: valuesOf('dns'),
    addresses: valuesOf('ip').map(addressOf),
    ca: constraints?.ca === true,
    pathLength: constraints?.pathLength,
    keyUsage: usage === null ? undefined : { flags: usage.usages, critical: usage.critical },
    extendedKeyUsage: parsed.getExtension(x509.ExtendedKeyUsageExtension)?.usages.map(String),
    unknownCritical: parsed.extensions
      .filter((extension) => extension.critical && !understood.has(extension.type))
      .map((extension) => extension.type),
    publicKey: native.publicKey,
    native,
  };
}

function addressOf(text: string): IpAddress {
  const address = tryParseIp(text);
  if (address === undefined) throw new IdentityError('BadCertificate', `the IP name ${JSON.stringify(text)} is none`);
  return address;
}

/** @returns Hexadecimal, lower case, without leading zeros: one spelling of one number. */
export function canonicalSerial(hex: string): string {
  return hex.toLowerCase().replace(/^0+(?=.)/, '');
}

export function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
