import type { TlsAsked } from '../../policy/proxy/tls.ts';
import type { Request } from '../../policy/request.ts';
import type { TlsUse } from '../../policy/tls.ts';
import { type Connection, type Gate, saidOf } from '../connection.ts';
import { Unread } from '../unread.ts';
import { Ending } from './ending.ts';
import { readHello } from './hello.ts';
import { Way } from './way.ts';

/** RFC 8446 section 6: a fatal alert, in a record of its own, in clear as all that comes before the keys. */
function alert(description: number): Uint8Array {
  return Uint8Array.of(21, 3, 3, 0, 2, 2, description);
}

const accessDenied = 49;
const decodeError = 50;
const internalError = 80;

/**
 * What is said in clear: where policy wants TLS to be opened to the server, its way is made.
 * @returns Whether it may go on; if not, the connection has been reset.
 */
export function beginInClear(connection: Connection): boolean {
  const asked = connection.began({ kind: 'clear' });
  if (asked.kind === 'nothing') return true;
  const { secrets } = connection.shared;
  const context = asked.kind === 'use' && asked.originate !== undefined ? secrets.trustFor(asked.originate) : undefined;
  if (context === undefined) {
    const expected = asked.kind === 'closed' && asked.why === 'clear';
    connection.refuse(expected ? 'TLS_MALFORMED' : 'TLS_SECRET', 'unknown');
    connection.reset();
    return false;
  }
  connection.way = new Way(connection, context, undefined);
  return true;
}

/**
 * TLS: where policy wants it ended here, it is; else the name of the server that the ClientHello asks for is judged, and then
 * all bytes pass as they come, or none do: the handshake is between the two ends, and nothing is decrypted.
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
    const asked = connection.began({ kind: 'tls', ...(serverName === undefined ? {} : { serverName }) });
    if (asked.kind !== 'nothing') {
      this.#endTls(asked, hello);
      return;
    }
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

  /** What is within is judged, request by request. */
  #endTls(asked: TlsAsked, { serverName, protocols }: { serverName?: string; protocols?: readonly string[] }): void {
    const connection = this.#connection;
    const { secrets } = connection.shared;
    const use: TlsUse = asked.kind === 'use' ? asked : {};
    const own = use.terminate === undefined ? undefined : secrets.serverFor(use.terminate);
    const trusted = use.originate === undefined ? undefined : secrets.trustFor(use.originate);
    if (own === undefined || (use.originate !== undefined && trusted === undefined)) {
      connection.refuse('TLS_SECRET', 'tls');
      this.#end(internalError);
      return;
    }
    const way = new Way(connection, trusted, serverName);
    connection.way = way;
    const ending = new Ending(connection, way);
    if (this.#draining) ending.drain();
    ending.begin(this.#inbox, protocols, own);
  }

  #end(description: number): void {
    this.#connection.patience(undefined);
    this.#connection.lastWords(alert(description));
  }
}
