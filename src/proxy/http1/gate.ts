import { type Head, parseHead } from '../../policy/http/parse.ts';
import type { Judgement } from '../../policy/proxy/judge.ts';
import type { HttpRequest } from '../../policy/request.ts';
import { type Connection, type Gate, saidOf } from '../connection.ts';
import { pathForPeople } from '../path.ts';
import type { Refusal } from '../tls/way.ts';
import { Unread } from '../unread.ts';
import { AnswerReader } from './answer.ts';
import { BodyReader } from './body.ts';

const denied = 'HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nServer: myelin\r\n\r\n';
/** What a client hears last, by why. */
export const lastAnswers = {
  HTTP_DENIED: 'HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n',
  HTTP_MALFORMED: 'HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n',
  HTTP_HEAD_TOO_BIG: 'HTTP/1.1 431 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n',
} as const;

const turnedAway = {
  421: 'HTTP/1.1 421 Misdirected Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n',
  503: 'HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n',
} as const;

/**
 * `head`: between two requests, or within a head. `body`: on to the server. `swallowed`: the body of a denied request.
 * `way`: it is allowed, and its way to the server is being made. `answer`: the request is sent, its answer is not all there.
 * `left`: nothing of the client's is read here any more.
 */
type Phase = 'head' | 'way' | 'body' | 'swallowed' | 'answer' | 'left';

/** What is waited for. `rest`: a server that should close, so that a request behind an answer without end is not in vain; `ending`: one whose client has. */
type Timed = 'nothing' | 'idle' | 'head' | 'rest' | 'ending';

/** The request that runs. */
interface Exchange {
  readonly request: HttpRequest;
  readonly judgement: Judgement;
  readonly upgrade: boolean;
  readonly began: number;
  said: boolean;
}

/**
 * HTTP/1: each request's head is read in its canonical form and judged; its bytes, and its answer's, pass as they came. One
 * request at a time is with the server, so that an answer of ours never gets in another's way, and a connection on which
 * one request was denied goes on with the next.
 */
export class Http1Gate implements Gate {
  readonly #connection: Connection;
  readonly #answers = new AnswerReader();
  #phase: Phase = 'head';
  /** What the client said and nobody took yet. */
  #inbox: Buffer;
  /** How much of the inbox has been looked at for the end of a line. */
  #looked = 0;
  #body = new BodyReader({ kind: 'none' });
  #exchange: Exchange | undefined;
  #clientEnded = false;
  #draining = false;
  #timed: Timed | undefined;
  #hears = false;

  private constructor(connection: Connection, first: Buffer) {
    this.#connection = connection;
    this.#inbox = first;
    const { client } = connection;
    client.on('data', (bytes: Buffer) => {
      this.#inbox = this.#inbox.length === 0 ? bytes : Buffer.concat([this.#inbox, bytes]);
      this.#pump();
    });
    client.on('drain', () => {
      connection.server?.resume();
      this.#pump();
    });
    client.on('end', () => {
      this.#clientEnded = true;
      this.#pump();
    });
    client.once('close', () => this.#sayUnanswered());
  }

  /** @param first What the client has said so far. */
  static begin(connection: Connection, first: Buffer): void {
    const gate = new Http1Gate(connection, first);
    connection.gate = gate;
    gate.#pump();
  }

  policyChanged(): void {
    const exchange = this.#exchange;
    if (exchange === undefined || this.#connection.stillAllowed(exchange.request)) return;
    this.#say({ ...exchange, judgement: this.#connection.judge(exchange.request) });
    this.#leave();
    this.#connection.reset();
  }

  drain(): void {
    this.#draining = true;
    this.#pump();
  }

  /** Goes on as far as anybody's bytes, and whoever takes them, allow. */
  #pump(): void {
    while (this.#phase !== 'left' && this.#step());
    if (this.#phase === 'left') return;
    const { client, server } = this.#connection;
    const waits = this.#phase === 'body' && server?.writableNeedDrain === true;
    if (waits || this.#inbox.length >= this.#connection.shared.limits.pipelined) client.pause();
    else client.resume();
  }

  /** @returns Whether there may be more to do. */
  #step(): boolean {
    switch (this.#phase) {
      case 'head':
        return this.#readHead();
      case 'body':
      case 'swallowed':
        return this.#readBody();
      case 'answer':
        return this.#readAnswer();
      case 'way':
      case 'left':
        return false;
    }
  }

  #readHead(): boolean {
    const { client } = this.#connection;
    if (this.#inbox.length === 0) return this.#betweenRequests();
    if (this.#draining) {
      this.#close();
      return false;
    }
    // Whoever does not read our answers is not asked for more.
    if (client.writableNeedDrain) return false;
    if (this.#answers.last) {
      // Behind an answer that nobody can follow a request would be a guess: it waits for the server to close.
      this.#time('head', this.#connection.shared.limits.idleMs);
      return false;
    }
    this.#time('head', this.#connection.shared.limits.headMs);
    // Only the end of a line changes what a head is, or too many bytes: a head in single bytes is not read anew with each.
    const grown = this.#inbox.includes(0x0a, this.#looked) || this.#inbox.length >= 8192;
    this.#looked = this.#inbox.length;
    const head = grown ? parseHead(this.#inbox) : { kind: 'more' as const };
    if (head.kind === 'more') {
      if (this.#clientEnded) this.#close();
      return false;
    }
    if (head.kind === 'refused') {
      this.#refuse(head.reason);
      this.#connection.lastWords(lastAnswers[head.reason]);
      return false;
    }
    this.#begin(head);
    return true;
  }

  /** @returns False: there is nothing to read. */
  #betweenRequests(): false {
    if (this.#draining) this.#close();
    else if (this.#clientEnded) {
      this.#halfClose();
      this.#time('ending', this.#connection.shared.limits.idleMs);
    }
    // A server has its own patience with connections on which nothing is asked.
    else this.#time('idle', this.#connection.server === undefined ? this.#connection.shared.limits.idleMs : undefined);
    return false;
  }

  /** Begins to wait, unless it does for the same already. */
  #time(timed: Timed, ms?: number): void {
    if (this.#timed === timed) return;
    this.#timed = timed;
    this.#connection.patience(ms);
  }

  #begin(head: Head): void {
    const connection = this.#connection;
    const bytes = this.#take(head.length);
    this.#time('nothing');
    const { request, upgrade } = head;
    let judgement = connection.judge(request);
    // What comes after it is not read: policy must allow that whatever it is.
    if (upgrade && judgement.verdict === 'allow') {
      const strict = connection.judge(undefined);
      if (strict.verdict === 'deny') judgement = { ...strict, reason: 'HTTP_DENIED' };
    }
    const exchange: Exchange = { request, judgement, upgrade, began: performance.now(), said: false };
    this.#body = new BodyReader(head.framing);
    if (judgement.verdict === 'deny') {
      this.#deny(head, exchange);
      return;
    }
    this.#exchange = exchange;
    this.#phase = 'way';
    let waited = false;
    connection.toServer(request.host, 'http/1.1', (refused) => {
      if (this.#phase !== 'way') return;
      if (refused !== undefined) this.#turnAway(exchange, refused);
      else {
        this.#answers.expect(request.method);
        this.#server().write(bytes);
        this.#phase = 'body';
      }
      if (waited) this.#pump();
    });
    waited = true;
  }

  /** Policy allows it, and it has no way to the server. */
  #turnAway(exchange: Exchange, { status, reason }: Refusal): void {
    this.#say({ ...exchange, judgement: { ...exchange.judgement, verdict: 'deny', reason } }, status);
    exchange.said = true;
    this.#leave();
    this.#connection.lastWords(turnedAway[status]);
  }

  #deny(head: Head, exchange: Exchange): void {
    this.#say(exchange, 403);
    // Who asked for leave to send a body, and got none, may leave it out: what comes then could be anything.
    const last = head.version === '1.0' || head.expect || head.upgrade || asksToClose(head.request) || this.#draining;
    if (last) {
      this.#leave();
      this.#connection.lastWords(lastAnswers.HTTP_DENIED);
      return;
    }
    this.#connection.client.write(denied);
    this.#phase = 'swallowed';
  }

  #readBody(): boolean {
    const { server } = this.#connection;
    if (this.#body.ended) {
      this.#phase = this.#phase === 'body' ? 'answer' : 'head';
      return true;
    }
    if (this.#inbox.length === 0) {
      if (this.#clientEnded) this.#halfClose();
      return false;
    }
    if (this.#phase === 'body' && server?.writableNeedDrain === true) return false;
    const length = this.#body.read(this.#inbox);
    if (this.#body.broken) {
      this.#refuse('HTTP_BODY_MALFORMED');
      this.#connection.reset();
      return false;
    }
    const bytes = this.#take(length);
    if (this.#phase === 'body') server?.write(bytes);
    return true;
  }

  #readAnswer(): boolean {
    if (this.#exchange?.upgrade === true && this.#answers.status === 101) {
      this.#upgraded();
      return false;
    }
    if (!this.#answers.done) {
      if (this.#answers.last && this.#inbox.length > 0) this.#time('rest', this.#connection.shared.limits.idleMs);
      if (this.#clientEnded && this.#inbox.length === 0) this.#halfClose();
      return false;
    }
    return this.#endExchange();
  }

  #endExchange(): true {
    this.#sayUnanswered();
    this.#phase = 'head';
    return true;
  }

  /** What follows is another protocol: both sides have said so. */
  #upgraded(): void {
    this.#leave();
    const connection = this.#connection;
    connection.gate = new Unread(connection, this.#inbox, undefined, 'http1');
  }

  #server() {
    const connection = this.#connection;
    const server = connection.openServer();
    if (this.#hears) return server;
    this.#hears = true;
    server.on('data', (bytes: Buffer) => {
      const before = this.#answers.status;
      this.#answers.read(bytes);
      if (this.#timed === 'rest') this.#time('nothing');
      if (!connection.client.write(bytes)) server.pause();
      if (this.#answers.status !== before && this.#answers.status >= 200 && this.#exchange !== undefined)
        this.#say(this.#exchange, this.#answers.status);
      this.#pump();
    });
    server.on('drain', () => this.#pump());
    server.on('end', () => this.#serverEnded());
    return server;
  }

  #serverEnded(): void {
    this.#sayUnanswered();
    if (this.#phase === 'left') return;
    this.#leave();
    this.#connection.lastWords('');
  }

  /** The client has said all that it will. */
  #halfClose(): void {
    const { server } = this.#connection;
    if (server !== undefined && !server.writableEnded) server.end();
    if (server === undefined) this.#close();
  }

  /** In good order: there is nothing that runs. */
  #close(): void {
    this.#leave();
    this.#connection.lastWords('');
  }

  #refuse(reason: 'HTTP_MALFORMED' | 'HTTP_HEAD_TOO_BIG' | 'HTTP_BODY_MALFORMED'): void {
    this.#leave();
    this.#connection.refuse(reason, 'http1');
  }

  #leave(): void {
    this.#phase = 'left';
    this.#time('nothing');
  }

  #take(length: number): Buffer {
    const taken = this.#inbox.subarray(0, length);
    this.#inbox = this.#inbox.subarray(length);
    this.#looked = 0;
    return taken;
  }

  /** The exchange is over; where nobody has seen an answer to it, there was none. */
  #sayUnanswered(): void {
    if (this.#exchange !== undefined) this.#say(this.#exchange);
    this.#exchange = undefined;
  }

  /** Says the request once: with its answer's status, or without where there is none. */
  #say(exchange: Exchange, status?: number): void {
    if (exchange.said) return;
    exchange.said = true;
    const { request, judgement, began } = exchange;
    this.#connection.say({
      protocol: 'http1',
      ...saidOf(judgement),
      method: request.method,
      path: pathForPeople(request.target),
      ...(status === undefined ? {} : { status, latencyMs: performance.now() - began }),
    });
  }
}

/** RFC 9112 section 9.6. */
function asksToClose({ headers }: HttpRequest): boolean {
  return headers.some(([name, value]) => name === 'connection' && /(?:^|[ \t,])close(?:$|[ \t,])/i.test(value));
}
