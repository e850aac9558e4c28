import type { IpAddress } from '../model/address.ts';
import { formatSpiffeId, type SpiffeId } from '../model/identity.ts';
import { type Result, refusal, success } from '../model/result.ts';
import type { TrustBundle } from './bundle.ts';
import { isIssuedBy, type ParsedCertificate } from './certificate.ts';
import { parseSpiffeUri, type SpiffeSubject, trustDomainOf } from './names.ts';
import { whyRevoked } from './revocation.ts';
import { oid, x509 } from './x509.ts';

/** Why a peer is not who it should be. Each is counted under its name. */
export const refusalReasons = {
  missing: 'no certificate was presented',
  malformed: 'the certificate is not an X.509-SVID',
  'foreign-domain': 'the certificate is of another trust domain',
  untrusted: 'no trusted root stands behind the certificate',
  'not-yet-valid': 'the certificate is not valid yet',
  expired: 'the certificate has expired',
  revoked: 'the certificate, its pod, service account or node is revoked',
  'wrong-identity': 'the certificate names somebody else',
  'wrong-uid': 'the certificate is of another pod',
  'wrong-address': 'the certificate does not carry the address',
} as const;

export type RefusalReason = keyof typeof refusalReasons;

export interface Refusal {
  readonly code: RefusalReason;
  /** For people: what was found and what was expected. */
  readonly detail: string;
}

/** Who the peer should be. What is left out may be anything. */
export type PeerExpectation =
  | {
      readonly kind: 'pod';
      readonly spiffeId?: SpiffeId | undefined;
      readonly podUid?: string | undefined;
      /** All of them must be in the certificate. */
      readonly addresses?: readonly IpAddress[] | undefined;
    }
  | { readonly kind: 'node'; readonly name?: string | undefined };

interface Proven {
  readonly trustDomain: string;
  readonly uri: string;
  /** Of the leaf certificate: canonical hexadecimal serial number and SHA-256. */
  readonly serialNumber: string;
  readonly fingerprint: string;
  /** When the proof ends: the earliest end of any certificate of the chain. Unix milliseconds. */
  readonly notAfter: number;
}

export interface PodPeer extends Proven {
  readonly kind: 'pod';
  readonly spiffeId: SpiffeId;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly podUid: string;
  readonly addresses: readonly IpAddress[];
}

export interface NodePeer extends Proven {
  readonly kind: 'node';
  readonly node: string;
  readonly organizations: readonly string[];
}

/** What a verified certificate proves, and nothing that it does not. */
export type PeerIdentity = PodPeer | NodePeer;

type PeerOf<Expectation extends PeerExpectation> = Extract<PeerIdentity, { kind: Expectation['kind'] }>;

/** Leaf, and up to three intermediates between it and a root. */
const longestChain = 4;

/**
 * Decides whether a chain proves what is expected: X.509 path validation (RFC 5280 section 6, for what stands in such
 * chains), then SPIFFE's leaf validation (X.509-SVID section 5.2), then the expectation. A function of its arguments:
 * that the peer holds the leaf's key is TLS's to prove.
 *
 * @param chain As presented, leaf first; certificates after it that are no part of the path are ignored.
 * @param now Unix milliseconds.
 */
export function verifyPeer<Expectation extends PeerExpectation>(
  chain: readonly ParsedCertificate[],
  bundle: TrustBundle,
  expectation: Expectation,
  now: number,
): Result<PeerOf<Expectation>, Refusal>;
export function verifyPeer(
  chain: readonly ParsedCertificate[],
  bundle: TrustBundle,
  expectation: PeerExpectation,
  now: number,
): Result<PeerIdentity, Refusal> {
  const leaf = chain[0];
  if (leaf === undefined) return refuse('missing', refusalReasons.missing);
  const form = whyNoLeaf(leaf);
  if (form !== undefined) return refuse('malformed', form);
  const uri = leaf.uris[0] ?? '';
  const domain = trustDomainOf(uri);
  if (domain === undefined) return refuse('malformed', `${JSON.stringify(uri)} is not a SPIFFE ID`);
  // SPIFFE picks the bundle by the trust domain that the leaf claims, so a foreign one is known as such before its chain is.
  if (domain !== bundle.trustDomain)
    return refuse('foreign-domain', `${uri} is of another trust domain than ${bundle.trustDomain}`);
  const subject = parseSpiffeUri(uri);
  if (subject === undefined) return refuse('malformed', `${uri} names neither a service account nor a node`);
  const path = findPath(chain, bundle.roots, now);
  if (!path.ok) return path;
  for (const certificate of path.value) {
    const revoked = whyRevoked(certificate, bundle.revocations);
    if (revoked !== undefined) return refuse('revoked', revoked);
  }
  const proven = {
    trustDomain: domain,
    uri,
    serialNumber: leaf.serialNumber,
    fingerprint: leaf.fingerprint,
    notAfter: Math.min(...path.value.map((certificate) => certificate.notAfter)),
  };
  return expectation.kind === 'pod'
    ? asPod(leaf, subject, proven, expectation)
    : asNode(leaf, subject, proven, expectation);
}

function asPod(
  leaf: ParsedCertificate,
  subject: SpiffeSubject,
  proven: Proven,
  expected: Extract<PeerExpectation, { kind: 'pod' }>,
): Result<PodPeer, Refusal> {
  if (subject.kind !== 'pod') return refuse('wrong-identity', `${proven.uri} is not a service account`);
  const spiffeId = formatSpiffeId(subject);
  const other = whyNotIdentity(spiffeId, expected);
  if (other !== undefined) return refusal(other);
  const [podUid] = leaf.subject.serialNumbers;
  if (podUid === undefined || leaf.subject.serialNumbers.length > 1)
    return refuse('wrong-uid', 'the certificate does not name one pod');
  const { namespace, serviceAccount } = subject;
  const peer = {
    kind: 'pod',
    ...proven,
    spiffeId,
    namespace,
    serviceAccount,
    podUid,
    addresses: leaf.addresses,
  } as const;
  const why = whyNotPod(peer, expected);
  return why === undefined ? success(peer) : refusal(why);
}

/** Holds a pod that was verified against an expectation, as {@link verifyPeer} does. @returns Why it is not that one. */
export function whyNotPod(
  { spiffeId, podUid, addresses }: Pick<PodPeer, 'spiffeId' | 'podUid' | 'addresses'>,
  expected: Extract<PeerExpectation, { kind: 'pod' }>,
): Refusal | undefined {
  const other = whyNotIdentity(spiffeId, expected);
  if (other !== undefined) return other;
  if (expected.podUid !== undefined && expected.podUid !== podUid)
    return { code: 'wrong-uid', detail: `the certificate is of pod ${podUid}, expected was ${expected.podUid}` };
  const absent = (expected.addresses ?? []).find((address) => !addresses.includes(address));
  if (absent === undefined) return undefined;
  return { code: 'wrong-address', detail: `the certificate is for [${addresses.join(', ')}], not for ${absent}` };
}

function whyNotIdentity(spiffeId: SpiffeId, expected: Extract<PeerExpectation, { kind: 'pod' }>): Refusal | undefined {
  if (expected.spiffeId === undefined || expected.spiffeId === spiffeId) return undefined;
  return { code: 'wrong-identity', detail: `the certificate is of ${spiffeId}, expected was ${expected.spiffeId}` };
}

function asNode(
  leaf: ParsedCertificate,
  subject: SpiffeSubject,
  proven: Proven,
  expected: Extract<PeerExpectation, { kind: 'node' }>,
): Result<NodePeer, Refusal> {
  if (subject.kind !== 'node') return refuse('wrong-identity', `${proven.uri} is not a node`);
  if (expected.name !== undefined && expected.name !== subject.node)
    return refuse('wrong-identity', `the certificate is of node ${subject.node}, expected was ${expected.name}`);
  return success({ kind: 'node', ...proven, node: subject.node, organizations: leaf.subject.organizations });
}

/** What keeps the certificate from being a leaf SVID (X.509-SVID sections 2, 4 and 5.2), or undefined. */
function whyNoLeaf(leaf: ParsedCertificate): string | undefined {
  const { digitalSignature, keyCertSign, cRLSign } = x509.KeyUsageFlags;
  if (leaf.uris.length !== 1) return `the certificate has ${leaf.uris.length} URI names, an SVID has exactly one`;
  if (leaf.ca) return 'the certificate is a CA’s, which never authenticates';
  if (leaf.keyUsage === undefined || !leaf.keyUsage.critical) return 'the certificate has no critical key usage';
  if ((leaf.keyUsage.flags & digitalSignature) === 0) return 'the key may not sign';
  if ((leaf.keyUsage.flags & (keyCertSign | cRLSign)) !== 0) return 'the key may sign certificates, a leaf’s may not';
  const usages = leaf.extendedKeyUsage;
  if (usages !== undefined && !(usages.includes(oid.serverAuth) && usages.includes(oid.clientAuth)))
    return 'the extended key usage is not that of both server and client';
  return whyUnusable(leaf);
}

/** What was found before, for as long as the certificate is kept: asking a key of its kind costs more than the rest. */
const found = new WeakMap<ParsedCertificate, { readonly why: string | undefined }>();

/** What RFC 5280 has against any certificate of a path, signature and time aside. */
function whyUnusable(certificate: ParsedCertificate): string | undefined {
  const known = found.get(certificate) ?? { why: findUnusable(certificate) };
  found.set(certificate, known);
  return known.why;
}

function findUnusable(certificate: ParsedCertificate): string | undefined {
  if (certificate.unknownCritical.length > 0)
    return `the certificate has critical extensions that are not understood: ${certificate.unknownCritical.join(', ')}`;
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = certificate.publicKey;
  const strong =
    type === 'ed25519' ||
    (type === 'ec' && (details?.namedCurve === 'prime256v1' || details?.namedCurve === 'secp384r1')) ||
    (type === 'rsa' && (details?.modulusLength ?? 0) >= 2048);
  return strong ? undefined : `the key (${type ?? 'unknown'}) is of a kind that is not accepted`;
}

/** Finds the way from the leaf to a root; `value` is every certificate on it, the root last. */
function findPath(
  chain: readonly ParsedCertificate[],
  roots: readonly ParsedCertificate[],
  now: number,
): Result<readonly ParsedCertificate[], Refusal> {
  const path: ParsedCertificate[] = [];
  let candidates = chain.slice(1, longestChain);
  let current = chain[0];
  while (current !== undefined) {
    const signed = current;
    path.push(signed);
    const signs = (ca: ParsedCertificate) => mayIssue(ca, path.length - 1) && isIssuedBy(signed, ca);
    const root = roots.find(signs);
    if (root !== undefined) return inTime([...path, root], now);
    current = candidates.find(signs);
    candidates = candidates.filter((candidate) => candidate !== current);
  }
  return refuse('untrusted', `no trusted root stands behind ${path[0]?.uris[0] ?? 'the certificate'}`);
}

/** @param below Number of CA certificates between this one and the leaf (RFC 5280 section 4.2.1.9). */
function mayIssue(ca: ParsedCertificate, below: number): boolean {
  return (
    ca.ca &&
    ca.keyUsage !== undefined &&
    (ca.keyUsage.flags & x509.KeyUsageFlags.keyCertSign) !== 0 &&
    below <= (ca.pathLength ?? Number.POSITIVE_INFINITY) &&
    whyUnusable(ca) === undefined
  );
}

function inTime(path: readonly ParsedCertificate[], now: number): Result<readonly ParsedCertificate[], Refusal> {
  for (const certificate of path) {
    const name = certificate.uris[0] ?? certificate.serialNumber;
    if (now < certificate.notBefore)
      return refuse('not-yet-valid', `${name} is valid from ${new Date(certificate.notBefore).toISOString()}`);
    if (now > certificate.notAfter)
      return refuse('expired', `${name} expired at ${new Date(certificate.notAfter).toISOString()}`);
  }
  return success(path);
}

function refuse(code: RefusalReason, detail: string): { readonly ok: false; readonly reason: Refusal } {
  return refusal({ code, detail });
}
