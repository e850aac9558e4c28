import type { KeyObject } from 'node:crypto';
import { constants } from 'node:crypto';
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls';
import type { TrustBundle } from '../../identity/bundle.ts';
import { type ParsedCertificate, toPem } from '../../identity/certificate.ts';

/** Application protocol name (ALPN) of the handshake, version and all. */
export const applicationProtocol = 'myelin/1';

/** The same between two nodes that derive their pods' keys from one handshake (breach radius `node`). */
export const nodeProtocol = 'myelin-node/1';

/** Key-exchange groups in order of preference: post-quantum hybrid first, classical for peers without it. */
export const defaultGroups = 'X25519MLKEM768:X25519';

/**
 * What every handshake's TLS is set to: 1.3 only, one cipher suite (its hash is as strong as the ESP key is long), no
 * tickets. Sessions are never stored, so there is none to resume; `isSessionReused` is checked all the same.
 */
export function tlsParameters(groups: string): SecureContextOptions {
  return {
    minVersion: 'TLSv1.3',
    maxVersion: 'TLSv1.3',
    ciphers: 'TLS_AES_256_GCM_SHA384',
    ecdhCurve: groups,
    sigalgs: 'ecdsa_secp256r1_sha256:ecdsa_secp384r1_sha384:ed25519:rsa_pss_rsae_sha256',
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
}

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
  #madeFor: TrustBundle | undefined;

  constructor(groups: string, bundle: () => TrustBundle) {
    this.#groups = groups;
    this.#bundle = bundle;
  }

  get(identity: TlsIdentity): SecureContext {
    const bundle = this.#bundle();
    if (bundle !== this.#madeFor) {
      this.#made = new WeakMap();
      this.#madeFor = bundle;
    }
    const known = this.#made.get(identity);
    if (known !== undefined) return known;
    const context = createSecureContext({
      ...tlsParameters(this.#groups),
      cert: toPem(identity.chain),
      key: identity.privateKey.export({ type: 'pkcs8', format: 'pem' }),
      ca: toPem(bundle.roots),
    });
    this.#made.set(identity, context);
    return context;
  }
}
