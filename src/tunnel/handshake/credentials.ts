import type { KeyObject } from 'node:crypto';
import { createSecureContext, type SecureContext } from 'node:tls';
import type { TrustBundle } from '../../identity/bundle.ts';
import { type ParsedCertificate, toPem } from '../../identity/certificate.ts';
import type { ThreadIdentity } from './threads/messages.ts';
import { tlsParameters } from './tls-parameters.ts';

/** A certificate with its key, of a pod or of the node itself. */
export interface TlsIdentity {
  /** Leaf first. */
  readonly chain: readonly ParsedCertificate[];
  readonly privateKey: KeyObject;
}

/**
 * Makes and keeps OpenSSL's form of the node's certificates; one costs about 0.3 ms. Entries go when their certificate
 * does, and are made anew when the trust bundle changes.
 */
export class TlsContexts {
  readonly #groups: string;
  readonly #bundle: () => TrustBundle;
  #made = new WeakMap<TlsIdentity, SecureContext>();
  #portable = new WeakMap<TlsIdentity, ThreadIdentity>();
  #madeFor: TrustBundle | undefined;

  constructor(groups: string, bundle: () => TrustBundle) {
    this.#groups = groups;
    this.#bundle = bundle;
  }

  get(identity: TlsIdentity): SecureContext {
    this.#renew();
    const known = this.#made.get(identity);
    if (known !== undefined) return known;
    const context = createSecureContext({
      ...tlsParameters(this.#groups),
      cert: toPem(identity.chain),
      key: identity.privateKey.export({ type: 'pkcs8', format: 'pem' }),
      ca: toPem(this.#bundle().roots),
    });
    this.#made.set(identity, context);
    return context;
  }

  /** The same for a thread to make its own of. */
  portable(identity: TlsIdentity): ThreadIdentity {
    this.#renew();
    const known = this.#portable.get(identity);
    if (known !== undefined) return known;
    const { roots, sequence } = this.#bundle();
    const { chain, privateKey } = identity;
    const name = `${chain[0]?.fingerprint} ${sequence}`;
    const portable = { name, chain: toPem(chain), privateKey, roots: toPem(roots) };
    this.#portable.set(identity, portable);
    return portable;
  }

  #renew(): void {
    const bundle = this.#bundle();
    if (bundle === this.#madeFor) return;
    this.#made = new WeakMap();
    this.#portable = new WeakMap();
    this.#madeFor = bundle;
  }
}
