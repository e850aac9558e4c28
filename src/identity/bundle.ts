import { EventEmitter } from 'node:events';
import { z } from 'zod';
import { isIssuedBy, type ParsedCertificate, parseCertificates, toPem } from './certificate.ts';
import { IdentityError } from './error.ts';
import { checkTrustDomain } from './names.ts';
import { type Revocations, type RevocationsDocument, revocationsFrom, revocationsSchema } from './revocation.ts';

/**
 * What a trust domain's certificates are checked against. Several roots stand side by side while the CA changes its
 * key: the new one is trusted everywhere before anything is signed by it.
 */
export interface TrustBundle {
  readonly trustDomain: string;
  /** Grows with every change; a bundle with a smaller number is older and is never taken over a newer one. */
  readonly sequence: number;
  readonly roots: readonly ParsedCertificate[];
  readonly revocations: Revocations;
}

/** A bundle as it travels and is stored. */
export interface BundleDocument {
  readonly trustDomain: string;
  readonly sequence: number;
  /** PEM, all roots. */
  readonly roots: string;
  readonly revocations?: RevocationsDocument | undefined;
}

export const bundleSchema: z.ZodType<BundleDocument> = z.strictObject({
  trustDomain: z.string().max(255),
  sequence: z.int().nonnegative(),
  roots: z.string().max(64 * 1024),
  revocations: revocationsSchema.optional(),
});

/**
 * Reads a bundle and checks that each of its roots may sign and signed itself.
 * @throws {IdentityError} `BadBundle`
 */
export function parseBundle(document: unknown): TrustBundle {
  const parsed = bundleSchema.safeParse(document);
  if (!parsed.success) throw new IdentityError('BadBundle', `the trust bundle is malformed: ${parsed.error.message}`);
  const { trustDomain, sequence, revocations } = parsed.data;
  checkTrustDomain(trustDomain);
  const roots = parseCertificates(parsed.data.roots);
  for (const root of roots)
    if (!root.ca || !isIssuedBy(root, root))
      throw new IdentityError('BadBundle', `root ${root.serialNumber} of ${trustDomain} is not a self-signed CA`);
  return { trustDomain, sequence, roots, revocations: revocationsFrom(revocations) };
}

/**
 * A bundle from a file of roots, as a node is given it when it joins: older than any that the controller sends.
 * @param pem One root or several.
 * @throws {IdentityError} `BadBundle`
 */
export function bundleFromPem(trustDomain: string, pem: string): TrustBundle {
  return parseBundle({ trustDomain, sequence: 0, roots: pem });
}

export function bundleDocument(bundle: TrustBundle): BundleDocument {
  const { serials, podUids, spiffeIds } = bundle.revocations;
  return {
    trustDomain: bundle.trustDomain,
    sequence: bundle.sequence,
    roots: toPem(bundle.roots),
    revocations: { serials: [...serials], podUids: [...podUids], spiffeIds: [...spiffeIds] },
  };
}

/** Holds the newest bundle that this process has seen and says when it changes. */
export class BundleStore extends EventEmitter<{ changed: [bundle: TrustBundle] }> {
  #current: TrustBundle;

  /** @param initial The trust anchor the node was given when it joined. */
  constructor(initial: TrustBundle) {
    super();
    this.#current = initial;
  }

  get current(): TrustBundle {
    return this.#current;
  }

  /**
   * Takes the bundle if it is newer; an older one, or one of another trust domain, changes nothing.
   * @returns Whether it was taken.
   */
  offer(bundle: TrustBundle): boolean {
    if (bundle.trustDomain !== this.#current.trustDomain || bundle.sequence <= this.#current.sequence) return false;
    this.#current = bundle;
    this.emit('changed', bundle);
    return true;
  }
}
