import type { ProxyFlow } from '../policy/proxy/wire.ts';
import type { Request } from '../policy/request.ts';
import { type Connection, type Gate, saidOf } from './connection.ts';
import { relay } from './relay.ts';

/**
 * A connection whose bytes pass unread: TLS behind its ClientHello, what has left HTTP, and whatever policy allows
 * whatever it carries. It is judged by what let it in, as long as it lives.
 */
export class Unread implements Gate {
  readonly #connection: Connection;
  readonly #request: Request | undefined;
  readonly #protocol: ProxyFlow['protocol'];

  /** @param first What of the client's bytes has been read already. @param request What let it in. */
  constructor(
    connection: Connection,
    first: Uint8Array,
    request: Request | undefined,
    protocol: ProxyFlow['protocol'],
  ) {
    this.#connection = connection;
    this.#request = request;
    this.#protocol = protocol;
    connection.patience(undefined);
    const { client } = connection;
    const server = connection.openServer();
    for (const socket of [client, server])
      for (const event of ['data', 'drain', 'end']) socket.removeAllListeners(event);
    if (first.length > 0) server.write(first);
    relay(client, server);
    relay(server, client);
    // One that had said all before somebody listened says it to nobody a second time.
    if (client.readableEnded) server.end();
    if (server.readableEnded) client.end();
  }

  policyChanged(): void {
    const connection = this.#connection;
    if (connection.stillAllowed(this.#request)) return;
    connection.say({ protocol: this.#protocol, ...saidOf(connection.judge(this.#request)) });
    connection.reset();
  }

  /** Nobody knows when it might end. */
  drain(): void {}
}
