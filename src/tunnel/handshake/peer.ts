import type { TrustBundle } from '../../identity/bundle.ts';
import { messageOf, type ParsedCertificate, parseCertificate } from '../../identity/certificate.ts';
import { type NodePeer, type PeerExpectation, type PodPeer, verifyPeer, whyNotPod } from '../../identity/verify.ts';
import { HandshakeError } from './error.ts';
import type { LinkFacts } from './link.ts';
import type { ShownChain } from './shown-chain.ts';
import { applicationProtocol } from './tls-parameters.ts';

/** Parsed certificates of peers that were verified; parsing one costs about 0.5 ms, and pods come back. */
const mostRemembered = 2048;
const longestChain = 4;

/** Reads and verifies whom a finished TLS handshake has on its other end. */
export class PeerVerifier {
  readonly #bundle: () => TrustBundle;
  readonly #now: () => number;
  readonly #remembered = new Map<string, ParsedCertificate>();
  /** What a chain was found to prove, by which bundle and when. */
  readonly #vouched = new WeakMap<
    ShownChain,
    { readonly bundle: TrustBundle; readonly at: number; readonly peer: PodPeer }
  >();

  constructor(bundle: () => TrustBundle, now: () => number) {
    this.#bundle = bundle;
    this.#now = now;
  }

  /**
   * Decides by {@link verifyPeer}; OpenSSL's own verdict must agree. TLS 1.3 has proved by now that the peer holds the
   * key of the certificate it presented, and nothing else.
   * @param protocol What must have been agreed on.
   * @throws {HandshakeError} `alpn`, `resumed`, or a reason of `verifyPeer`.
   */
  verify(facts: LinkFacts, expectation: Extract<PeerExpectation, { kind: 'pod' }>, protocol?: string): PodPeer;
  verify(facts: LinkFacts, expectation: Extract<PeerExpectation, { kind: 'node' }>, protocol?: string): NodePeer;
  verify(facts: LinkFacts, expectation: PeerExpectation, protocol: string = applicationProtocol): PodPeer | NodePeer {
    if (facts.protocol !== protocol) throw new HandshakeError('alpn');
    // A resumed session carries the certificate of an earlier day, or none.
    if (facts.resumed) throw new HandshakeError('resumed');
    const chain = this.#parse(facts.presented);
    const verified = this.#decide(chain, expectation);
    if (!facts.authorized)
      throw new HandshakeError('untrusted', `OpenSSL does not trust the chain: ${facts.authorizationError}`);
    for (const certificate of chain) this.#remember(certificate);
    return verified;
  }

  /**
   * Decides about a pod's chain that its node presents: the same checks, but nobody proved to hold the leaf's key. What
   * does not depend on the expectation is found out again when there is another trust bundle, and by another time only
   * where the clock has left what was looked at.
   * @throws {HandshakeError} A reason of `verifyPeer`.
   */
  vouched(shown: ShownChain, expectation: Extract<PeerExpectation, { kind: 'pod' }>): PodPeer {
    const bundle = this.#bundle();
    const now = this.#now();
    const known = this.#vouched.get(shown);
    if (known?.bundle === bundle && known.at <= now && now <= known.peer.notAfter) {
      const refusal = whyNotPod(known.peer, expectation);
      if (refusal !== undefined) throw new HandshakeError(refusal.code, refusal.detail);
      return known.peer;
    }
    const chain = this.#parse(shown.presented);
    const peer = this.#decide(chain, expectation);
    for (const certificate of chain) this.#remember(certificate);
    this.#vouched.set(shown, { bundle, at: now, peer });
    return peer;
  }

  #decide(chain: readonly ParsedCertificate[], expectation: Extract<PeerExpectation, { kind: 'pod' }>): PodPeer;
  #decide(chain: readonly ParsedCertificate[], expectation: PeerExpectation): PodPeer | NodePeer;
  #decide(chain: readonly ParsedCertificate[], expectation: PeerExpectation): PodPeer | NodePeer {
    const verified = verifyPeer(chain, this.#bundle(), expectation, this.#now());
    if (!verified.ok) throw new HandshakeError(verified.reason.code, verified.reason.detail);
    return verified.value;
  }

  #parse(presented: readonly Buffer[]): ParsedCertificate[] {
    try {
      return presented
        .slice(0, longestChain)
        .map((raw) => this.#remembered.get(raw.toString('latin1')) ?? parseCertificate(raw));
    } catch (cause) {
      throw new HandshakeError('malformed', messageOf(cause), { cause });
    }
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
