import { z } from 'zod';
import { canonicalSerial, type ParsedCertificate } from './certificate.ts';

/** What is no longer believed although its certificates have not expired. Travels with the trust bundle. */
export interface Revocations {
  /** Certificate serial numbers, canonical hexadecimal. */
  readonly serials: ReadonlySet<string>;
  readonly podUids: ReadonlySet<string>;
  /** Service accounts' and nodes' URIs. */
  readonly spiffeIds: ReadonlySet<string>;
}

export interface RevocationsDocument {
  readonly serials: readonly string[];
  readonly podUids: readonly string[];
  readonly spiffeIds: readonly string[];
}

export const revocationsSchema: z.ZodType<RevocationsDocument> = z.strictObject({
  serials: z.array(z.string().max(64)).max(100_000),
  podUids: z.array(z.string().max(64)).max(100_000),
  spiffeIds: z.array(z.string().max(2048)).max(100_000),
});

/** What somebody asks to be revoked, in part. */
export const revocationRequestSchema: z.ZodType<Partial<RevocationsDocument>> = z.strictObject({
  serials: z.array(z.string().max(64)).max(1000).default([]),
  podUids: z.array(z.string().max(64)).max(1000).default([]),
  spiffeIds: z.array(z.string().max(2048)).max(1000).default([]),
});

export const noRevocations: Revocations = { serials: new Set(), podUids: new Set(), spiffeIds: new Set() };

export function revocationsFrom(document: RevocationsDocument | undefined): Revocations {
  if (document === undefined) return noRevocations;
  return {
    serials: new Set(document.serials.map(canonicalSerial)),
    podUids: new Set(document.podUids),
    spiffeIds: new Set(document.spiffeIds),
  };
}

/** @returns What is revoked, in words, or undefined where the certificate still stands. */
export function whyRevoked(certificate: ParsedCertificate, revocations: Revocations): string | undefined {
  if (revocations.serials.has(certificate.serialNumber)) return `certificate ${certificate.serialNumber} is revoked`;
  const uid = certificate.subject.serialNumbers.find((serial) => revocations.podUids.has(serial));
  if (uid !== undefined) return `pod ${uid} is revoked`;
  const uri = certificate.uris.find((name) => revocations.spiffeIds.has(name));
  return uri === undefined ? undefined : `${uri} is revoked`;
}
