import type { Server } from 'node:tls';
import { endOrderly } from '../../kernel/tcp-socket.ts';
import type { Connection, Gate } from '../connection.ts';
import { Http1Gate } from '../http1/gate.ts';
import { Http2Gate } from '../http2/gate.ts';
import type { Protocol, Way } from './way.ts';

/** Makes the TLS server of one connection, which chooses of these protocols. */
export type ServerOf = (protocols: readonly string[]) => Server;

/**
 * Ends the client's TLS in the server's place, and reads what is within. Where the server speaks TLS too it is asked
 * first: the client is offered what the server has chosen of the client's own offer, and nobody has to translate.
 */
export class Ending implements Gate {
  readonly #connection: Connection;
  readonly #way: Way;
  #draining = false;

  constructor(connection: Connection, way: Way) {
    this.#connection = connection;
    this.#way = way;
  }

  /**
   * @param first The ClientHello, as it came. @param offered What it offers by ALPN; undefined: nothing at all.
   * @param serverOf What the client is shown.
   */
  begin(first: Buffer, offered: readonly string[] | undefined, serverOf: ServerOf): void {
    const { client, shared } = this.#connection;
    this.#connection.gate = this;
    client.removeAllListeners('data').removeAllListeners('end');
    // Its own orderly end is TLS's from now on.
    endOrderly(client);
    const known = (['h2', 'http/1.1'] as const).filter((name) => (offered ?? ['http/1.1']).includes(name));
    const said = [first];
    let length = first.length;
    // Whoever waits for the server has nothing to say; that it leaves is to be heard.
    client.on('data', (bytes: Buffer) => {
      said.push(bytes);
      length += bytes.length;
      if (length > shared.limits.helloOnWire) this.#connection.reset();
    });
    client.on('end', () => this.#connection.reset());
    const shake = () => {
      for (const event of ['data', 'end']) client.removeAllListeners(event);
      client.pause();
      this.#shake(Buffer.concat(said), serverOf, known);
    };
    // Whoever offers none of the two is told so by the handshake.
    if (known.length === 0 || !this.#way.secure) shake();
    else {
      // The way has a patience of its own, and then there is something to say.
      this.#connection.patience(shared.limits.connectMs + shared.limits.headMs);
      this.#way.open(known, shake);
    }
  }

  /** Nothing has been let in yet. */
  policyChanged(): void {}

  drain(): void {
    this.#draining = true;
  }

  #shake(first: Buffer, serverOf: ServerOf, known: readonly Protocol[]): void {
    const connection = this.#connection;
    const { client } = connection;
    if (client.destroyed) return;
    connection.patience(connection.shared.limits.headMs);
    client.unshift(first);
    const { agreed } = this.#way;
    // In the order of our own liking. A server in clear hardly ever takes HTTP/2 unless it takes nothing else.
    const server = serverOf(
      agreed === undefined ? ['http/1.1', 'h2'] : known.includes(agreed) ? [agreed] : ['http/1.1'],
    );
    server.once('tlsClientError', () => connection.refuse('TLS_MALFORMED', 'tls'));
    server.once('secureConnection', (tls) => {
      tls.on('error', () => connection.reset());
      connection.patience(undefined);
      connection.secured(tls);
      if (tls.alpnProtocol === 'h2') connection.gate = new Http2Gate(connection, Buffer.alloc(0));
      else Http1Gate.begin(connection, Buffer.alloc(0));
      if (this.#draining) connection.drain();
    });
    // It never listens: this is its one connection.
    server.emit('connection', client);
  }
}
