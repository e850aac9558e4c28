import type { HandshakeCode, HandshakeError } from './error.ts';

export interface HandshakeStatistics {
  /** Handshakes done, begun here and begun by peers. */
  readonly opened: number;
  readonly answered: number;
  /** Peers that this side refused, or that went away, by reason, whichever side began. */
  readonly refused: Readonly<Partial<Record<HandshakeCode, number>>>;
  /** TLS handshakes that failed at this node's port, by what OpenSSL says of it. */
  readonly tlsErrors: Readonly<Record<string, number>>;
  /** Handshakes that peers refused, by the reason they gave. */
  readonly refusedByPeer: Readonly<Partial<Record<HandshakeCode, number>>>;
  /** Of the handshakes done: those that replaced a key which was up. */
  readonly rekeys: number;
  /** Tunnels that were ended because one of their ends was revoked. */
  readonly revoked: number;
  /** Connections at the handshake port that are open now. */
  readonly connections: number;
  /** Sessions with other nodes that pairs derive their keys from, and how many handshakes of nodes there were. */
  readonly nodeSessions: number;
  readonly nodeHandshakes: number;
  /** Threads that do handshakes now, and that were begun since the start. */
  readonly threads: number;
  readonly threadsBegun: number;
}

const mostTlsErrors = 64;

/** Counts how handshakes end. Yielding to the other side's attempt is no refusal and is not counted. */
export class HandshakeCounters {
  readonly #refused = new Map<HandshakeCode, number>();
  readonly #refusedByPeer = new Map<HandshakeCode, number>();
  readonly #tlsErrors = new Map<string, number>();
  opened = 0;
  answered = 0;
  rekeys = 0;
  revoked = 0;
  connections = 0;

  failed(error: HandshakeError): void {
    if (error.code === 'yield' || error.code === 'aborted') return;
    const counts = error.by === 'us' ? this.#refused : this.#refusedByPeer;
    counts.set(error.code, (counts.get(error.code) ?? 0) + 1);
  }

  /** @param reason OpenSSL's, of which there are some hundreds; a peer chooses which it brings about. */
  tlsFailed(reason: string): void {
    const known = this.#tlsErrors.has(reason) || this.#tlsErrors.size < mostTlsErrors;
    const name = known ? reason : 'other';
    this.#tlsErrors.set(name, (this.#tlsErrors.get(name) ?? 0) + 1);
  }

  statistics(): Omit<HandshakeStatistics, 'nodeSessions' | 'nodeHandshakes' | 'threads' | 'threadsBegun'> {
    return {
      opened: this.opened,
      answered: this.answered,
      refused: Object.fromEntries(this.#refused),
      tlsErrors: Object.fromEntries(this.#tlsErrors),
      refusedByPeer: Object.fromEntries(this.#refusedByPeer),
      rekeys: this.rekeys,
      revoked: this.revoked,
      connections: this.connections,
    };
  }
}

/**
 * Lets one of a kind through in each interval and counts the rest, so that a stranger cannot fill the log. Remembers a
 * bounded number of kinds.
 */
export class RateLimit {
  readonly #intervalMs: number;
  readonly #now: () => number;
  readonly #kinds = new Map<string, { until: number; skipped: number }>();

  constructor(intervalMs: number, now: () => number) {
    this.#intervalMs = intervalMs;
    this.#now = now;
  }

  /** @returns How many of the kind were kept back since the last that went through, or undefined: keep this one back too. */
  pass(kind: string): number | undefined {
    const now = this.#now();
    const known = this.#kinds.get(kind);
    if (known !== undefined && now < known.until) {
      known.skipped++;
      return undefined;
    }
    if (this.#kinds.size >= 1024) this.#kinds.clear();
    this.#kinds.set(kind, { until: now + this.#intervalMs, skipped: 0 });
    return known?.skipped ?? 0;
  }
}
