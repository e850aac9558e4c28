import { familyOf, type IpAddress } from '../model/address.ts';
import { formatSpiffeId, parseSpiffeId, type SpiffeId, type SpiffeParts } from '../model/identity.ts';
import { IdentityError } from './error.ts';

/** Who a certificate's URI names: a pod's service account, or a node. */
export type SpiffeSubject =
  | ({ readonly kind: 'pod' } & SpiffeParts)
  | { readonly kind: 'node'; readonly trustDomain: string; readonly node: string };

const trustDomainGrammar = /^[a-z0-9._-]{1,255}$/;
/** Kubernetes UIDs are UUIDs or (static pods) hexadecimal digests; all of them are single DNS labels. */
const uidGrammar = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
/** RFC 1123 subdomain, as Kubernetes names nodes. */
const nodeGrammar = /^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$/;
const nodeUri = /^spiffe:\/\/([a-z0-9._-]{1,255})\/node\/([^/]+)$/;

/** Organization of node certificates, the name Kubernetes gives the group of nodes. */
export const nodeOrganization = 'system:nodes';
/** Organization of administrators' certificates, likewise. */
export const adminOrganization = 'system:masters';

/** @throws {IdentityError} `BadName` unless SPIFFE-ID section 2.1 allows it. */
export function checkTrustDomain(text: string): string {
  if (!trustDomainGrammar.test(text))
    throw new IdentityError('BadName', `${JSON.stringify(text)} is not a trust domain: lower case, digits, ". _ -"`);
  return text;
}

/** @throws {IdentityError} `BadName` unless it can stand in a certificate's serialNumber and as a DNS label. */
export function checkUid(text: string): string {
  if (!uidGrammar.test(text)) throw new IdentityError('BadName', `${JSON.stringify(text)} is not a pod UID`);
  return text;
}

/** @throws {IdentityError} `BadName` */
export function checkNodeName(text: string): string {
  if (!nodeGrammar.test(text)) throw new IdentityError('BadName', `${JSON.stringify(text)} is not a node name`);
  return text;
}

/** @returns `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`. @throws {MyelinError} `InvalidSpiffeId` */
export function podSpiffeId(parts: SpiffeParts): SpiffeId {
  const id = formatSpiffeId(parts);
  parseSpiffeId(id);
  return id;
}

/** @returns `spiffe://<trust domain>/node/<name>`: a path that no pod can have. @throws {IdentityError} `BadName` */
export function nodeSpiffeId(trustDomain: string, node: string): string {
  return `spiffe://${checkTrustDomain(trustDomain)}/node/${checkNodeName(node)}`;
}

/** @returns What the URI names, or undefined where it is neither a pod's nor a node's to the letter. */
export function parseSpiffeUri(uri: string): SpiffeSubject | undefined {
  const [, trustDomain, node] = nodeUri.exec(uri) ?? [];
  if (trustDomain !== undefined && node !== undefined)
    return nodeGrammar.test(node) ? { kind: 'node', trustDomain, node } : undefined;
  try {
    return { kind: 'pod', ...parseSpiffeId(uri) };
  } catch {
    return undefined;
  }
}

/** @returns The trust domain of any SPIFFE ID, whatever its path, or undefined where it is not one. */
export function trustDomainOf(uri: string): string | undefined {
  return /^spiffe:\/\/([a-z0-9._-]{1,255})(\/|$)/.exec(uri)?.[1];
}

/** The server name (SNI) that asks for a pod at a node's handshake port. */
export function endpointServerName(podUid: string, trustDomain: string): string {
  return `${checkUid(podUid)}.${checkTrustDomain(trustDomain)}`;
}

/** The server name (SNI) that asks for the node itself. `node` can be no UID: those are longer or hexadecimal. */
export function nodeServerName(trustDomain: string): string {
  return `node.${checkTrustDomain(trustDomain)}`;
}

/** @returns The pod UID that the server name asks for, `node`, or undefined where it is a name of neither. */
export function parseServerName(
  name: string,
  trustDomain: string,
): { readonly kind: 'node' } | { readonly kind: 'pod'; readonly uid: string } | undefined {
  const suffix = `.${trustDomain}`;
  if (!name.endsWith(suffix)) return undefined;
  const label = name.slice(0, -suffix.length);
  if (label === 'node') return { kind: 'node' };
  return uidGrammar.test(label) ? { kind: 'pod', uid: label } : undefined;
}

/** @throws {IdentityError} `BadName` unless there are one or two addresses, one of a family at most. */
export function checkPodAddresses(addresses: readonly IpAddress[]): void {
  const families = new Set(addresses.map(familyOf));
  if (addresses.length < 1 || families.size !== addresses.length)
    throw new IdentityError(
      'BadName',
      `a pod has one address of each family at most and one at least, not [${addresses.join(', ')}]`,
    );
}
