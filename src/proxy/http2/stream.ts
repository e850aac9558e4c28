import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  constants,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type ServerHttp2Stream,
  sensitiveHeaders,
} from 'node:http2';
import { optionFlags } from '../../policy/image.ts';
import type { Judgement } from '../../policy/proxy/judge.ts';
import type { HttpRequest } from '../../policy/request.ts';
import { type Connection, saidOf } from '../connection.ts';
import { pathForPeople } from '../path.ts';
import { relay } from '../relay.ts';
import type { Refusal } from '../tls/way.ts';
import { readRequest } from './request.ts';

const permissionDenied = 7;
const unavailable = 14;
const { NGHTTP2_NO_ERROR, NGHTTP2_CANCEL, NGHTTP2_REFUSED_STREAM, NGHTTP2_INADEQUATE_SECURITY } = constants;
const { NGHTTP2_FLAG_END_STREAM } = constants;

/** node:http2 would add a date to an answer without one. Its types do not know that it can be told not to. */
const asItCame = { sendDate: false };

/** RFC 7541 section 7.1.3: what one side does not index nobody on the way does. */
function withSensitive(raw: readonly string[], headers: IncomingHttpHeaders): readonly string[] {
  return Object.assign([...raw], { [sensitiveHeaders]: Reflect.get(headers, sensitiveHeaders) ?? [] });
}

/** One request and its answer, on a stream with the client and, where it is allowed, one with the server. */
export class Stream {
  readonly #connection: Connection;
  readonly #incoming: ServerHttp2Stream;
  readonly #session: () => ClientHttp2Session;
  #outgoing: ClientHttp2Stream | undefined;
  #request: HttpRequest | undefined;
  #judgement: Judgement | undefined;
  #grpc = false;
  /** The request's. */
  #trailers: IncomingHttpHeaders = {};
  /** The end of the server's answer has been given out. */
  #answered = false;
  #began = 0;
  #status: number | undefined;
  #grpcStatus: number | undefined;
  #latencyMs: number | undefined;

  /** @param session The session with the server. */
  constructor(connection: Connection, incoming: ServerHttp2Stream, session: () => ClientHttp2Session) {
    this.#connection = connection;
    this.#incoming = incoming;
    this.#session = session;
  }

  /** @param raw As node:http2 hands them on. @param ended There is no body. */
  begin(headers: IncomingHttpHeaders, raw: readonly string[], ended: boolean): void {
    this.#began = performance.now();
    const answer = readRequest(raw);
    if (answer.kind === 'refused') {
      this.#connection.refuse(answer.reason, 'http2');
      this.#answer({ ':status': answer.reason === 'HTTP_HEAD_TOO_BIG' ? 431 : 400 });
      return;
    }
    this.#request = answer.request;
    this.#grpc = answer.grpc;
    this.#judgement = this.#connection.judge(answer.request);
    if (this.#judgement.verdict === 'deny') this.#deny();
    else {
      const { request } = answer;
      let waited = false;
      this.#incoming.on('trailers', (said) => {
        this.#trailers = said;
      });
      this.#connection.toServer(request.host, 'h2', (refused) => {
        if (this.#incoming.closed || this.#incoming.destroyed) return;
        if (waited) this.#judgement = this.#connection.judge(request);
        if (this.#judgement?.verdict === 'deny') this.#deny();
        else if (refused !== undefined) this.#turnAway(refused);
        else this.#safely(() => this.#pass(this.#forServer(raw, headers), ended));
      });
      waited = true;
    }
  }

  /** Policy allows it, and it has no way to the server. */
  #turnAway({ status, reason }: Refusal): void {
    if (this.#judgement !== undefined) this.#judgement = { ...this.#judgement, verdict: 'deny', reason };
    if (this.#grpc) this.#refuseGrpc(unavailable, 'no TLS to the server');
    else this.#answer({ ':status': status, 'content-length': '0', server: 'myelin' });
    // A connection of its own is tried anew.
    this.#connection.drain();
  }

  /** As it came, but for the scheme where clear has become TLS (RFC 9113 section 8.3.1). */
  #forServer(raw: readonly string[], headers: IncomingHttpHeaders): readonly string[] {
    const secure = this.#connection.way?.secure === true;
    const list = secure ? raw.map((value, at) => (at % 2 === 1 && raw[at - 1] === ':scheme' ? 'https' : value)) : raw;
    return withSensitive(list, headers);
  }

  /** Policy is another one: a request that runs is judged by it. */
  policyChanged(): void {
    const request = this.#request;
    if (request === undefined || this.#outgoing === undefined || this.#connection.stillAllowed(request)) return;
    this.#judgement = this.#connection.judge(request);
    this.#outgoing.close(NGHTTP2_CANCEL);
    if ((this.#judgement.flags & optionFlags.reset) !== 0) this.#connection.reset();
    else if (!this.#incoming.headersSent) this.#deny();
    // The one code that clients of gRPC take for PERMISSION_DENIED.
    else this.#incoming.close(this.#grpc ? NGHTTP2_INADEQUATE_SECURITY : NGHTTP2_CANCEL);
  }

  /** The stream with the client is over: so is the other, and the request is said. */
  closed(): void {
    const outgoing = this.#outgoing;
    if (outgoing !== undefined && !outgoing.closed)
      outgoing.close(this.#incoming.rstCode === NGHTTP2_NO_ERROR ? NGHTTP2_CANCEL : this.#incoming.rstCode);
    if (this.#request === undefined || this.#judgement === undefined) return;
    this.#connection.say({
      protocol: 'http2',
      ...saidOf(this.#judgement),
      method: this.#request.method,
      path: pathForPeople(this.#request.target),
      ...(this.#status === undefined ? {} : { status: this.#status }),
      ...(this.#grpcStatus === undefined ? {} : { grpcStatus: this.#grpcStatus }),
      ...(this.#latencyMs === undefined ? {} : { latencyMs: this.#latencyMs }),
    });
  }

  #deny(): void {
    if (!this.#grpc) this.#answer({ ':status': 403, 'content-length': '0', server: 'myelin' });
    else this.#refuseGrpc(permissionDenied, 'denied by network policy');
  }

  /** gRPC over HTTP/2, Responses: trailers only. */
  #refuseGrpc(status: number, message: string): void {
    this.#grpcStatus = status;
    const words = { 'grpc-status': String(status), 'grpc-message': message };
    this.#answer({ ':status': 200, 'content-type': 'application/grpc', ...words });
  }

  /** Answers in the server's place; what there is of the request's body is not waited for. */
  #answer(headers: OutgoingHttpHeaders & { readonly ':status': number }): void {
    const incoming = this.#incoming;
    this.#status = headers[':status'];
    this.#latencyMs = performance.now() - this.#began;
    if (incoming.destroyed || incoming.closed) return;
    incoming.resume();
    incoming.respond(headers, { endStream: true });
    // RFC 9113 section 8.1: with NO_ERROR the answer stands, and the client need not send the rest.
    incoming.close(NGHTTP2_NO_ERROR);
  }

  /**
   * node:http2 throws at what it does not want to say. A peer that brings it to that ends its own connection with it, and
   * nobody else's.
   */
  #safely(run: () => void): void {
    try {
      run();
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? String(error.code) : 'of ours';
      this.#connection.shared.counts.refuse(`PROXY_FAILED ${code}`);
      this.#connection.reset();
    }
  }

  #pass(headers: readonly string[], ended: boolean): void {
    const incoming = this.#incoming;
    const session = this.#session();
    if (session.closed || session.destroyed) {
      // It goes away: the client has been told, or is about to be, and asks on another connection.
      incoming.close(NGHTTP2_REFUSED_STREAM);
      return;
    }
    const outgoing = session.request(headers, { endStream: ended, waitForTrailers: !ended });
    this.#outgoing = outgoing;
    outgoing.on('wantTrailers', () => {
      if (!outgoing.closed) this.#safely(() => outgoing.sendTrailers(this.#trailers));
    });
    if (!ended) relay(incoming, outgoing);
    this.#follow(outgoing);
  }

  /** Hands on what the server answers. */
  #follow(outgoing: ClientHttp2Stream): void {
    const incoming = this.#incoming;
    let trailers: IncomingHttpHeaders = {};
    outgoing.on('error', () => {});
    outgoing.on('headers', (said) => {
      const interim = { ':status': said[':status'] ?? 100 };
      if (!incoming.headersSent && !incoming.closed) this.#safely(() => incoming.additionalHeaders(interim));
    });
    outgoing.on('response', (said, flags, raw) => {
      this.#latencyMs = performance.now() - this.#began;
      this.#status = said[':status'];
      this.#readGrpcStatus(said);
      if (incoming.closed || incoming.destroyed) return;
      const ended = (flags & NGHTTP2_FLAG_END_STREAM) !== 0;
      this.#safely(() => {
        incoming.respond(withSensitive(raw, said), { endStream: ended, waitForTrailers: !ended, ...asItCame });
        if (ended) this.#answered = true;
        else relay(outgoing, incoming);
      });
    });
    outgoing.on('trailers', (said) => {
      trailers = said;
      this.#readGrpcStatus(said);
    });
    incoming.on('wantTrailers', () => {
      if (incoming.closed) return;
      this.#safely(() => incoming.sendTrailers(trailers));
      this.#answered = true;
      if (outgoing.closed) this.#leaveRest();
    });
    outgoing.on('close', () => this.#serverIsDone(outgoing));
  }

  #readGrpcStatus(said: IncomingHttpHeaders): void {
    const { 'grpc-status': status } = said;
    if (typeof status === 'string' && /^[0-9]{1,3}$/.test(status)) this.#grpcStatus = Number(status);
  }

  #serverIsDone(outgoing: ClientHttp2Stream): void {
    const incoming = this.#incoming;
    if (incoming.closed || incoming.destroyed) return;
    if (outgoing.rstCode !== NGHTTP2_NO_ERROR || !incoming.headersSent) {
      incoming.close(outgoing.rstCode === NGHTTP2_NO_ERROR ? NGHTTP2_CANCEL : outgoing.rstCode);
      return;
    }
    if (this.#answered) this.#leaveRest();
  }

  /**
   * The server's answer has been handed on whole, and it did not want all of the request: then the client need not send the
   * rest. Not before the end of the answer has been given out: a reset overtakes data.
   */
  #leaveRest(): void {
    const incoming = this.#incoming;
    if (!incoming.closed && incoming.state.remoteClose !== 1) incoming.close(NGHTTP2_NO_ERROR);
  }
}
