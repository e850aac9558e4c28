import type { TLSSocket } from 'node:tls';
import type { TrustBundle } from '../../identity/bundle.ts';
import { messageOf, type ParsedCertificate, parseCertificate } from '../../identity/certificate.ts';
import { type NodePeer, type PeerExpectation, type PodPeer, verifyPeer } from '../../identity/verify.ts';
import { applicationProtocol } from './credentials.ts';
import { HandshakeError } from './error.ts';

/** Parsed certificates of peers that were verified; parsing one costs about 0.5 ms, and pods come back. */
const mostRemembered = 2048;
const longestChain = 4;

/** Reads and verifies whom a finished TLS handshake has on its other end. */
export class PeerVerifier {
  readonly #bundle: () => TrustBundle;
  readonly #now: () => number;
  readonly #remembered = new Map<string, ParsedCertificate>();

  constructor(bundle: () => TrustBundle, now: () => number) {
    this.#bundle = bundle;
    this.#now = now;
  }

  /**
   * Decides by {@link verifyPeer}; OpenSSL's own verdict must agree. TLS 1.3 has proved by now that the peer holds the
   * key of the certificate it presented, and nothing else. To be called once for a socket: Node takes the certificate
   * out of a client's session as it hands it out.
   * @throws {HandshakeError} `alpn`, `resumed`, or a reason of `verifyPeer`.
   */
  verify(socket: TLSSocket, expectation: Extract<PeerExpectation, { kind: 'pod' }>): PodPeer;
  verify(socket: TLSSocket, expectation: Extract<PeerExpectation, { kind: 'node' }>): NodePeer;
  verify(socket: TLSSocket, expectation: PeerExpectation): PodPeer | NodePeer {
    if (socket.alpnProtocol !== applicationProtocol) throw new HandshakeError('alpn');
    // A resumed session carries the certificate of an earlier day, or none.
    if (socket.isSessionReused()) throw new HandshakeError('resumed');
    const chain = this.#presented(socket);
    const verified = verifyPeer(chain, this.#bundle(), expectation, this.#now());
    if (!verified.ok) throw new HandshakeError(verified.reason.code, verified.reason.detail);
    if (!socket.authorized)
      throw new HandshakeError('untrusted', `OpenSSL does not trust the chain: ${String(socket.authorizationError)}`);
    for (const certificate of chain) this.#remember(certificate);
    return verified.value;
  }

  #presented(socket: TLSSocket): ParsedCertificate[] {
    const chain: ParsedCertificate[] = [];
    try {
      let next = socket.getPeerX509Certificate();
      while (next !== undefined && chain.length < longestChain) {
        const { raw, issuerCertificate } = next;
        chain.push(this.#remembered.get(raw.toString('latin1')) ?? parseCertificate(raw));
        next = issuerCertificate;
      }
    } catch (cause) {
      throw new HandshakeError('malformed', messageOf(cause), { cause });
    }
    return chain;
  }

  #remember(certificate: ParsedCertificate): void {
    const key = certificate.der.toString('latin1');
    this.#remembered.delete(key);
    this.#remembered.set(key, certificate);
    if (this.#remembered.size <= mostRemembered) return;
    const [oldest] = this.#remembered.keys();
    if (oldest !== undefined) this.#remembered.delete(oldest);
  }
}

/**
 * The name of the key-exchange group, as the client's socket knows it: Node says `X25519MLKEM768` as a TLS group and
 * `X25519` as a curve, and tells the server's side nothing.
 */
export function negotiatedGroup(socket: TLSSocket): string | undefined {
  const info = socket.getEphemeralKeyInfo();
  return info !== null && 'name' in info && typeof info.name === 'string' ? info.name : undefined;
}
