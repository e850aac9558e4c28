import { constants } from 'node:crypto';
import type { SecureContextOptions } from 'node:tls';

/** Application protocol name (ALPN) of the handshake, version and all. */
export const applicationProtocol = 'myelin/1';

/** The same between two nodes that derive their pods' keys from one handshake (breach radius `node`). */
export const nodeProtocol = 'myelin-node/3';

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
