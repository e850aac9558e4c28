import { messageOf } from '../../identity/certificate.ts';
import { type RefusalReason, refusalReasons } from '../../identity/verify.ts';
import { MyelinError } from '../../model/error.ts';
import { TunnelError } from '../driver.ts';

/** Why a handshake came to nothing, each with what it means in words. The names travel in `refused` lines and are metrics. */
const handshakeCodes = {
  ...refusalReasons,
  'unknown-endpoint': 'no pod of that UID is on the node',
  'unknown-peer': 'the pod that asks is not known (yet) at the address it claims',
  'wrong-node': 'the pod is not on the node that speaks for it',
  radius: 'the pods’ namespaces want a handshake of their own for each pair (breach radius pod)',
  policy: 'no policy admits traffic between the two pods',
  yield: 'both sides began at once and the other’s attempt goes first',
  selectors: 'the addresses offered are not the two pods’',
  version: 'the peer speaks no version of the protocol that is spoken here',
  'bad-message': 'the peer sent something that is no message of the protocol',
  alpn: 'the peer did not ask for this protocol',
  resumed: 'the peer tried to resume an old session',
  tls: 'the TLS handshake failed',
  timeout: 'the peer took too long',
  disconnected: 'the connection broke before the handshake was done',
  unreachable: 'the peer’s node cannot be reached',
  'too-many': 'too many handshakes are under way',
  'no-certificate': 'the pod on this side has no valid certificate now',
  driver: 'the tunnel driver refused the keys',
  internal: 'an error of this program; the log has it',
  aborted: 'the attempt was given up, because a newer one or a change took its place',
} as const satisfies Record<string, string> & Record<RefusalReason, string>;

export type HandshakeCode = keyof typeof handshakeCodes;

/** Codes that a second try a moment later will not change: packets that wait are let go at once. */
const lasting: ReadonlySet<HandshakeCode> = new Set([
  'malformed',
  'foreign-domain',
  'untrusted',
  'revoked',
  'wrong-identity',
  'wrong-address',
  'policy',
  'selectors',
  'version',
  'bad-message',
  'alpn',
]);

export class HandshakeError extends MyelinError<HandshakeCode> {
  /** Who ended it: this side, or the peer by saying why. */
  readonly by: 'us' | 'peer';

  constructor(
    code: HandshakeCode,
    detail: string = handshakeCodes[code],
    options: { by?: 'us' | 'peer'; cause?: unknown; data?: Record<string, unknown> } = {},
  ) {
    const { by = 'us', ...rest } = options;
    super(code, by === 'peer' ? `the peer refused: ${detail}` : detail, rest);
    this.by = by;
  }

  get lasting(): boolean {
    return lasting.has(this.code);
  }
}

export function isHandshakeCode(text: string): text is HandshakeCode {
  return Object.hasOwn(handshakeCodes, text);
}

/** Anything that went wrong in a handshake, as one of its reasons; an error of the driver keeps its words. */
export function asHandshakeError(cause: unknown): HandshakeError {
  if (cause instanceof HandshakeError) return cause;
  return new HandshakeError(cause instanceof TunnelError ? 'driver' : 'internal', messageOf(cause), { cause });
}
