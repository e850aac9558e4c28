import { MyelinError } from './error.ts';

/** `spiffe://<trust domain>/ns/<namespace>/sa/<service account>` */
export type SpiffeId = string & { readonly spiffeId: unique symbol };

/**
 * A handle for one security identity, meaningful on its node only; it never travels.
 * At most 24 bits, because it rides in the low bits of a packet's mark between two programs of one node.
 */
export type IdentityNumber = number & { readonly identityNumber: unique symbol };

/** Identities that are not pods'. `any` is not an identity but the wildcard of policy entries. */
export const reservedIdentity = {
  any: 0 as IdentityNumber,
  /** This node itself: its own processes, such as the kubelet's probes. */
  host: 1 as IdentityNumber,
  /** Every address that no pod, no node and no policy's CIDR names. */
  world: 2 as IdentityNumber,
  /** Another node of the cluster. */
  remoteNode: 3 as IdentityNumber,
} as const;

/** The first number that is given to a pod's or a CIDR's identity. */
export const firstFreeIdentity = 256;
export const lastIdentity = 0xef_ffff;

/**
 * Numbers for patterns of DNS names: in policy entries they stand where identities do, for whatever address an endpoint
 * has learnt under such a name. Nobody's own, so never in a mark.
 */
export const firstNameIdentity = 0xf0_0000;
export const lastNameIdentity = 0xff_ffff;

/** @throws {MyelinError} `InvalidIdentity` where the number does not fit in 24 bits. */
export function identityNumber(number: number): IdentityNumber {
  if (!Number.isInteger(number) || number < 0 || number > lastNameIdentity)
    throw new MyelinError('InvalidIdentity', `${number} is not an identity number from 0 to ${lastNameIdentity}`);
  return number as IdentityNumber;
}

export interface SpiffeParts {
  readonly trustDomain: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

const grammar =
  /^spiffe:\/\/([a-z0-9._-]{1,255})\/ns\/([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)\/sa\/([a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?)$/;

export function formatSpiffeId(parts: SpiffeParts): SpiffeId {
  return `spiffe://${parts.trustDomain}/ns/${parts.namespace}/sa/${parts.serviceAccount}` as SpiffeId;
}

/** @throws {MyelinError} `InvalidSpiffeId` where the text does not follow the grammar to the letter. */
export function parseSpiffeId(text: string): SpiffeParts {
  const match = grammar.exec(text);
  const [, trustDomain, namespace, , serviceAccount] = match ?? [];
  if (trustDomain === undefined || namespace === undefined || serviceAccount === undefined)
    throw new MyelinError(
      'InvalidSpiffeId',
      `${JSON.stringify(text)} is not spiffe://<trust domain>/ns/<namespace>/sa/<service account>`,
    );
  return { trustDomain, namespace, serviceAccount };
}
