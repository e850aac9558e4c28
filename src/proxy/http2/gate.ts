import {
  type ClientHttp2Session,
  connect,
  constants,
  type IncomingHttpHeaders,
  performServerHandshake,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { Connection, Gate } from '../connection.ts';
import { limits } from '../limits.ts';
import { clientSide, serverSide } from './options.ts';
import { Stream } from './stream.ts';

/**
 * HTTP/2, and so gRPC: a session with the client and one with the server, which know nothing of each other but what is
 * handed on here, stream by stream. Settings, pings and flow control are each session's own.
 */
export class Http2Gate implements Gate {
  readonly #connection: Connection;
  readonly #client: ServerHttp2Session;
  #server: ClientHttp2Session | undefined;
  readonly #streams = new Set<Stream>();

  /** @param first What the client has said so far: the preface, and perhaps more. */
  constructor(connection: Connection, first: Buffer) {
    this.#connection = connection;
    const { client } = connection;
    // Whoever can not say anything any more can not go on with HTTP/2 either.
    client.allowHalfOpen = false;
    client.pause();
    client.unshift(first);
    const session = performServerHandshake(client, clientSide);
    this.#client = session;
    session.setLocalWindowSize(limits.window);
    session.on('error', () => connection.reset());
    session.on('close', () => connection.server?.destroySoon());
    session.on('stream', (stream, headers, flags, raw) => this.#begin(stream, headers, flags, raw));
    this.#rest();
  }

  policyChanged(): void {
    for (const stream of [...this.#streams]) stream.policyChanged();
  }

  drain(): void {
    if (!this.#client.closed) this.#client.close();
  }

  #begin(incoming: ServerHttp2Stream, headers: IncomingHttpHeaders, flags: number, raw: readonly string[]): void {
    const { counts } = this.#connection.shared;
    this.#connection.patience(undefined);
    counts.streams++;
    const stream = new Stream(this.#connection, incoming, () => this.#session());
    this.#streams.add(stream);
    incoming.on('error', () => {});
    incoming.once('close', () => {
      counts.streams--;
      this.#streams.delete(stream);
      stream.closed();
      this.#rest();
    });
    stream.begin(headers, raw, (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0);
  }

  /** A server has its own patience with a connection on which nothing is asked. */
  #rest(): void {
    if (this.#streams.size > 0 || this.#server !== undefined) return;
    this.#connection.patience(this.#connection.shared.limits.idleMs, () => this.drain());
  }

  /** The session with the server, which begins with the first request that is allowed. */
  #session(): ClientHttp2Session {
    if (this.#server !== undefined) return this.#server;
    const connection = this.#connection;
    // What is asked for stands in each request; this one is only asked for by node:http2.
    const server = connection.openServer();
    server.allowHalfOpen = false;
    const session = connect('http://localhost', { ...serverSide, createConnection: () => server });
    this.#server = session;
    session.once('connect', () => session.setLocalWindowSize(limits.window));
    session.on('error', () => connection.reset());
    session.on('goaway', (code) => {
      // Its streams end as it says; new ones are for another connection.
      if (code === constants.NGHTTP2_NO_ERROR) this.drain();
      else if (!this.#client.destroyed) {
        this.#client.goaway(code);
        this.drain();
      }
    });
    session.on('close', () => this.drain());
    return session;
  }
}
