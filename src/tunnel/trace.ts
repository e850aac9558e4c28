import type { PodPeer, RefusalReason } from '../identity/verify.ts';
import type { HandshakeCode } from './handshake/error.ts';

/** One step of a handshake, as this side saw it. */
export interface TraceStep {
  readonly step: string;
  /** Since the handshake was asked for. */
  readonly ms: number;
  readonly detail: string;
}

/** One thing that a peer's certificate is checked for. */
export interface CertificateCheck {
  readonly check: string;
  readonly result: 'passed' | 'failed' | 'not reached';
  readonly detail: string;
}

export interface HandshakeTrace {
  readonly role: 'initiator' | 'responder';
  /** `done`, or the code of why not. */
  readonly outcome: string;
  /** Why not, in words; empty where it is done. */
  readonly problem: string;
  readonly steps: readonly TraceStep[];
  readonly checks: readonly CertificateCheck[];
}

/** What verifyPeer looks at, in its order, each with the refusals that it ends in. */
const checks: readonly (readonly [string, readonly RefusalReason[], (peer: PodPeer) => string])[] = [
  ['a certificate is presented', ['missing'], ({ serialNumber }) => `serial ${serialNumber}`],
  ['it is an X.509-SVID', ['malformed'], ({ fingerprint }) => `SHA-256 ${fingerprint.slice(0, 16)}…`],
  ['it is of the trust domain', ['foreign-domain'], ({ trustDomain }) => trustDomain],
  ['a trusted root stands behind it', ['untrusted'], () => ''],
  ['it is valid now', ['not-yet-valid', 'expired'], ({ notAfter }) => `until ${new Date(notAfter).toISOString()}`],
  ['nothing of it is revoked', ['revoked'], () => ''],
  ['it names the service account', ['wrong-identity'], ({ spiffeId }) => spiffeId],
  ['it names the pod', ['wrong-uid'], ({ podUid }) => podUid],
  ['it carries the addresses', ['wrong-address'], ({ addresses }) => addresses.join(', ')],
];

/**
 * What was checked of a peer's certificate, and how each check went: a check is reached only when those before it passed.
 * @param outcome Who the peer proved to be, or why it did not.
 */
export function certificateChecks(
  outcome: { readonly peer: PodPeer } | { readonly code: HandshakeCode; readonly text: string },
): CertificateCheck[] {
  if ('peer' in outcome)
    return checks.map(([check, , detail]) => ({ check, result: 'passed', detail: detail(outcome.peer) }));
  const failed = checks.findIndex(([, codes]) => codes.some((code) => code === outcome.code));
  return checks.map(([check], i) => ({
    check,
    result: failed < 0 || i > failed ? 'not reached' : i === failed ? 'failed' : 'passed',
    detail: i === failed ? outcome.text : '',
  }));
}

/** Notes the steps of one handshake. */
export class Tracer {
  readonly #now: () => number;
  readonly #from: number;
  readonly #steps: TraceStep[] = [];
  readonly #done = Promise.withResolvers<HandshakeTrace>();
  #peer: PodPeer | undefined;

  constructor(now: () => number) {
    this.#now = now;
    this.#from = now();
  }

  /** Resolves when the handshake has ended. */
  get done(): Promise<HandshakeTrace> {
    return this.#done.promise;
  }

  step(step: string, detail = ''): void {
    this.#steps.push({ step, ms: this.#now() - this.#from, detail });
  }

  verified(peer: PodPeer): void {
    this.#peer = peer;
    this.step('the peer’s certificate is verified', peer.spiffeId);
  }

  end(role: HandshakeTrace['role'], error?: { readonly code: HandshakeCode; readonly text: string }): void {
    const peer = this.#peer;
    const outcome = peer === undefined ? (error ?? { code: 'internal' as const, text: '' }) : { peer };
    this.#done.resolve({
      role,
      outcome: error?.code ?? 'done',
      problem: error?.text ?? '',
      steps: [...this.#steps],
      checks: certificateChecks(outcome),
    });
  }
}
