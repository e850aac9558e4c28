import type { KeyObject } from 'node:crypto';
import type { IpAddress } from '../model/address.ts';
import type { PodRef } from '../model/endpoint.ts';
import type { SpiffeId } from '../model/identity.ts';
import type { BundleDocument } from './bundle.ts';
import type { ParsedCertificate } from './certificate.ts';

/** A pod as its certificate will name it. */
export interface PodIdentity {
  readonly pod: PodRef;
  readonly serviceAccount: string;
  readonly addresses: readonly IpAddress[];
}

/** A pod's certificate with its key. The key was made on this node and never leaves its memory. */
export interface Svid {
  readonly spiffeId: SpiffeId;
  readonly podUid: string;
  readonly addresses: readonly IpAddress[];
  /** Leaf first, without the root. */
  readonly chain: readonly ParsedCertificate[];
  readonly privateKey: KeyObject;
  /** Unix milliseconds. */
  readonly notBefore: number;
  readonly notAfter: number;
}

export interface IssueRequest extends PodIdentity {
  /** PEM. */
  readonly csr: string;
  /** The issuer may give less. Absent: the issuer's default. */
  readonly lifetimeMs?: number | undefined;
}

export interface Issued {
  /** PEM, leaf first, without the root. */
  readonly chain: string;
  readonly bundle: BundleDocument;
}

/** Whoever signs: the embedded CA, a SPIFFE Workload API, Istio's CA. */
export interface Issuer {
  /**
   * @throws {IdentityError} `IssueRefused` (the issuer looked and said no; `data.reason` is its code) or
   *   `IssuerUnreachable`. Both may pass: what the issuer looks at may lag.
   */
  issue(request: IssueRequest, signal: AbortSignal): Promise<Issued>;
}
