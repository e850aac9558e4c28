import { type Connection, type Gate, saidOf } from './connection.ts';
import { Http1Gate, lastAnswers } from './http1/gate.ts';
import { Http2Gate } from './http2/gate.ts';
import { sniff } from './sniff.ts';
import { beginInClear, TlsGate } from './tls/gate.ts';
import { Unread } from './unread.ts';

/**
 * A connection before anybody knows what is spoken on it: the client's first bytes tell. Where the client waits for the
 * server to speak first, nobody ever does: policy is about requests.
 */
export class Opening implements Gate {
  readonly #connection: Connection;
  #inbox: Buffer = Buffer.alloc(0);

  constructor(connection: Connection) {
    this.#connection = connection;
    // What policy allows whatever it carries need not be read, and may be anything.
    const judgement = connection.judge(undefined);
    if (judgement.verdict === 'allow') {
      connection.say({ protocol: 'unknown', ...saidOf(judgement) });
      connection.gate = new Unread(connection, this.#inbox, undefined, 'unknown');
      return;
    }
    connection.gate = this;
    connection.patience(connection.shared.limits.idleMs);
    const { client } = connection;
    client.on('data', (bytes: Buffer) => this.#read(bytes));
    client.on('end', () => connection.lastWords(''));
    client.resume();
  }

  /** Nothing has been let in yet. */
  policyChanged(): void {}

  drain(): void {
    if (this.#inbox.length === 0) this.#connection.lastWords('');
  }

  #read(bytes: Buffer): void {
    const connection = this.#connection;
    if (this.#inbox.length === 0) connection.patience(connection.shared.limits.headMs);
    this.#inbox = Buffer.concat([this.#inbox, bytes]);
    const speech = sniff(this.#inbox);
    if (speech === 'more') return;
    const { client } = connection;
    client.removeAllListeners('data');
    client.removeAllListeners('end');
    if ((speech === 'http1' || speech === 'h2') && !beginInClear(connection)) return;
    switch (speech) {
      case 'http1':
        Http1Gate.begin(connection, this.#inbox);
        return;
      case 'h2':
        connection.gate = new Http2Gate(connection, this.#inbox);
        return;
      case 'tls':
        TlsGate.begin(connection, this.#inbox);
        return;
      case 'none':
        connection.refuse('PROXY_MALFORMED', 'unknown');
        // As the kernel says to it, where that reads.
        connection.lastWords(lastAnswers.HTTP_MALFORMED);
    }
  }
}
