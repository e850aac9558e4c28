import type { Request } from '../../policy/request.ts';
import { type Connection, type Gate, saidOf } from '../connection.ts';
import { Unread } from '../unread.ts';
import { readHello } from './hello.ts';

/** RFC 8446 section 6: a fatal alert, in a record of its own, in clear as all that comes before the keys. */
function alert(description: number): Uint8Array {
  return Uint8Array.of(21, 3, 3, 0, 2, 2, description);
}

const accessDenied = 49;
const decodeError = 50;

/**
 * TLS: the name of the server that the ClientHello asks for is judged; then all bytes pass as they come, or none do. The
 * handshake is between the two ends: nothing is decrypted here.
 */
export class TlsGate implements Gate {
  readonly #connection: Connection;
  #inbox: Buffer;
  #draining = false;

  private constructor(connection: Connection, first: Buffer) {
    this.#connection = connection;
    this.#inbox = first;
    connection.patience(connection.shared.limits.headMs);
    connection.client.on('data', (bytes: Buffer) => {
      this.#inbox = Buffer.concat([this.#inbox, bytes]);
      this.#read();
    });
    connection.client.on('end', () => connection.lastWords(''));
    connection.client.resume();
  }

  /** @param first What the client has said so far. */
  static begin(connection: Connection, first: Buffer): void {
    const gate = new TlsGate(connection, first);
    connection.gate = gate;
    gate.#read();
  }

  /** Nothing has been let in yet. */
  policyChanged(): void {}

  drain(): void {
    this.#draining = true;
  }

  #read(): void {
    const connection = this.#connection;
    const hello = readHello(this.#inbox);
    if (hello.kind === 'more') return;
    if (hello.kind === 'refused') {
      connection.refuse('TLS_MALFORMED', 'tls');
      this.#end(decodeError);
      return;
    }
    const { serverName } = hello;
    const request: Request = { kind: 'tls', ...(serverName === undefined ? {} : { serverName }) };
    const judgement = connection.judge(request);
    connection.say({ protocol: 'tls', ...saidOf(judgement), ...(serverName === undefined ? {} : { serverName }) });
    if (judgement.verdict === 'deny') this.#end(accessDenied);
    else {
      const unread = new Unread(connection, this.#inbox, request, 'tls');
      connection.gate = unread;
      if (this.#draining) unread.drain();
    }
  }

  #end(description: number): void {
    this.#connection.patience(undefined);
    this.#connection.lastWords(alert(description));
  }
}
