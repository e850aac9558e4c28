import { isIP, type Socket } from 'node:net';
import { connect, type SecureContext, type TLSSocket } from 'node:tls';
import type { DropReason } from '../../model/verdict.ts';
import type { Connection } from '../connection.ts';

export type Protocol = 'h2' | 'http/1.1';

/** Why a request that policy allows does not go to the server, and what it is answered. */
export interface Refusal {
  readonly status: 421 | 503;
  readonly reason: DropReason;
}

const unverified: Refusal = { status: 503, reason: 'TLS_UNVERIFIED' };
const misdirected: Refusal = { status: 421, reason: 'TLS_MISDIRECTED' };

/**
 * The way of a connection's requests to the server where TLS is ended, opened or both: TLS to the server is there before
 * the first byte of a request goes, and the server has proved the name that the client asked for.
 */
export class Way {
  readonly #connection: Connection;
  readonly #context: SecureContext | undefined;
  /** The host that the connection is for: as the client's TLS asked, or its first request. */
  #name: string | undefined;
  #state: 'none' | 'opening' | 'ready' | 'refused' = 'none';
  #waiting: (() => void)[] = [];
  /** What the two of them have agreed to speak; undefined: the server has no say in it (ALPN), or there is none yet. */
  #agreed: Protocol | undefined;

  /** @param context Undefined: the server is spoken to in clear. @param name The server that the client's TLS asks for. */
  constructor(connection: Connection, context: SecureContext | undefined, name: string | undefined) {
    this.#connection = connection;
    this.#context = context;
    this.#name = name;
  }

  /** Whether what goes to the server is within TLS. */
  get secure(): boolean {
    return this.#context !== undefined;
  }

  /** What the server chose of what it was offered; HTTP/1.1 where it does not choose (RFC 7301 section 3.2 lets it be silent). */
  get agreed(): Protocol | undefined {
    return this.#state === 'ready' ? (this.#agreed ?? 'http/1.1') : undefined;
  }

  /**
   * Makes the way ready for a request.
   * @param host As the request has it. @param then Called at once where the way is ready; never once the connection is over.
   */
  reach(host: string | undefined, protocol: Protocol, then: (refused?: Refusal) => void): void {
    const wanted = host === undefined ? undefined : hostOf(host);
    if (this.#context !== undefined) this.#name ??= wanted;
    // Whoever proved one name has not proved another (RFC 9110 section 7.4).
    if (this.#name !== undefined && wanted !== undefined && wanted !== this.#name) then(misdirected);
    else
      this.open([protocol], () => {
        const refused = this.#state === 'refused' || (this.secure && this.agreed !== protocol);
        then(refused ? unverified : undefined);
      });
  }

  /** Opens TLS to the server, once. @param offered By ALPN. @param then When it stands, or is refused. */
  open(offered: readonly Protocol[], then: () => void): void {
    if (this.#context === undefined || this.#state === 'ready' || this.#state === 'refused') {
      then();
      return;
    }
    this.#waiting.push(then);
    if (this.#state === 'opening') return;
    this.#state = 'opening';
    const connection = this.#connection;
    const wire = connection.shared.open(connection.origin);
    this.#name ??= connection.origin.server;
    const name = this.#name;
    const tls = connect({
      socket: wire,
      secureContext: this.#context,
      // What a name is checked against, and asked for where it is one (RFC 6066 section 3 has none for addresses).
      host: name,
      ...(isIP(name) === 0 ? { servername: name } : {}),
      ALPNProtocols: [...offered],
      rejectUnauthorized: true,
    });
    this.#await(wire, tls);
  }

  #await(wire: Socket, tls: TLSSocket): void {
    const connection = this.#connection;
    const timer = setTimeout(() => settle('ETIMEDOUT'), connection.shared.limits.connectMs);
    const left = () => wire.destroy();
    const settle = (failure: string | undefined) => {
      if (this.#state !== 'opening') return;
      clearTimeout(timer);
      connection.wire.off('close', left);
      if (failure === undefined && !tls.authorized) failure = 'UNAUTHORIZED';
      if (failure === undefined) {
        this.#state = 'ready';
        this.#agreed = tls.alpnProtocol === 'h2' || tls.alpnProtocol === 'http/1.1' ? tls.alpnProtocol : undefined;
        connection.adopt(tls, wire);
      } else {
        this.#state = 'refused';
        wire.destroy();
        // A client that has gone meanwhile is nobody's failure.
        if (!connection.over) connection.shared.counts.refuse(`${unverified.reason} ${failure}`);
      }
      for (const then of this.#waiting.splice(0)) if (!connection.over) then();
    };
    connection.wire.once('close', left);
    tls.on('error', (error) => settle(codeOf(error)));
    wire.on('error', (error) => settle(codeOf(error)));
    wire.on('close', () => settle('CLOSED'));
    tls.once('secureConnect', () => settle(undefined));
  }
}

/** OpenSSL's or the system's name for it: there are a few dozen, whatever a peer does. */
function codeOf(error: Error): string {
  return 'code' in error && typeof error.code === 'string' ? error.code : 'FAILED';
}

/** The host of an authority, without its port. */
export function hostOf(authority: string): string {
  const bare = authority.toLowerCase().replace(/:[0-9]*$/, '');
  return bare.startsWith('[') ? bare.slice(1, -1) : bare.replace(/\.$/, '');
}
