import type { TLSSocket } from 'node:tls';
import type { Exporter } from './keys.ts';

/** What a finished TLS handshake says of the other end. Nothing in it has been checked. */
export interface LinkFacts {
  /** As presented, DER, leaf first. */
  readonly presented: readonly Buffer[];
  readonly protocol: string | undefined;
  readonly resumed: boolean;
  /** OpenSSL's own verdict on the chain, and what it has against it. */
  readonly authorized: boolean;
  readonly authorizationError: string;
  readonly cipher: string;
  /** Known to the client only: Node tells a server nothing of it. */
  readonly group: string | undefined;
  /** Whom the client asked for. */
  readonly serverName: string | undefined;
  readonly remoteAddress: string | undefined;
}

export interface LinkListener {
  /** The chunk is the listener's. */
  data(chunk: Uint8Array): void;
  /** Said once. Without a cause: the other end closed, or this one did. */
  closed(cause?: Error): void;
}

/** A TLS connection whose handshake is done, on whichever thread its bytes are worked on. */
export interface SecureLink extends Exporter {
  readonly facts: LinkFacts;
  /** @param data Text is sent as UTF-8; bytes are the link's from here on. */
  write(data: string | Uint8Array): void;
  /** From here on the listener is told. To be called once, in the turn in which the link was got. */
  listen(listener: LinkListener): void;
  /** Ends politely, and for certain. */
  end(): void;
  destroy(): void;
}

const longestChain = 4;
const lingerMs = 1000;

/** A link on this thread. */
export class SocketLink implements SecureLink {
  readonly facts: LinkFacts;
  readonly #socket: TLSSocket;

  /** To be made once for a socket: Node takes the certificate out of a client's session as it hands it out. */
  constructor(socket: TLSSocket) {
    this.#socket = socket;
    this.facts = factsOf(socket);
  }

  write(data: string | Uint8Array): void {
    this.#socket.write(data);
  }

  listen(listener: LinkListener): void {
    let cause: Error | undefined;
    this.#socket.on('data', (chunk: Buffer) => listener.data(chunk));
    this.#socket.on('error', (error) => {
      cause ??= error;
    });
    this.#socket.on('close', () => listener.closed(cause));
  }

  exportKeyingMaterial(length: number, label: string, context: Buffer): Buffer {
    return this.#socket.exportKeyingMaterial(length, label, context);
  }

  end(): void {
    const socket = this.#socket;
    if (socket.destroyed) return;
    socket.end();
    const timer = setTimeout(() => socket.destroy(), lingerMs);
    timer.unref();
    socket.once('close', () => clearTimeout(timer));
  }

  destroy(): void {
    this.#socket.destroy();
  }
}

/** Reads everything that is ever asked of a socket whose handshake is done. */
function factsOf(socket: TLSSocket): LinkFacts {
  const presented: Buffer[] = [];
  for (let next = socket.getPeerX509Certificate(); next !== undefined && presented.length < longestChain; ) {
    presented.push(next.raw);
    next = next.issuerCertificate;
  }
  return {
    presented,
    protocol: typeof socket.alpnProtocol === 'string' ? socket.alpnProtocol : undefined,
    resumed: socket.isSessionReused(),
    authorized: socket.authorized,
    authorizationError: String(socket.authorizationError ?? ''),
    cipher: socket.getCipher().standardName,
    group: negotiatedGroup(socket),
    serverName: 'servername' in socket && typeof socket.servername === 'string' ? socket.servername : undefined,
    remoteAddress: socket.remoteAddress,
  };
}

/**
 * The name of the key-exchange group, as the client's socket knows it: Node says `X25519MLKEM768` as a TLS group and
 * `X25519` as a curve, and tells the server's side nothing.
 */
export function negotiatedGroup(socket: TLSSocket): string | undefined {
  const info = socket.getEphemeralKeyInfo();
  return info !== null && 'name' in info && typeof info.name === 'string' ? info.name : undefined;
}
