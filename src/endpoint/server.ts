import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import type { Logger } from 'pino';
import { MyelinError } from '../model/error.ts';
import { CniError, toCniError } from './cni/error.ts';
import { type CniRequest, parseRequest, type RawRequest } from './cni/request.ts';
import { encodeFrame, FrameReader, maxRequestBytes, type Reply } from './wire.ts';

/** Who serves the requests. Each method fails with a {@link CniError}, or anything else, which becomes one. */
export interface CniHandler {
  add(request: CniRequest): Promise<unknown>;
  del(request: CniRequest): Promise<void>;
  check(request: CniRequest): Promise<void>;
  gc(request: CniRequest): Promise<void>;
  status(): Promise<void>;
}

export interface CniServerOptions {
  /** The socket's path; its directory is made for root only if it is not there. */
  readonly path: string;
  /** Connections at once; more are closed, which their plugin reports as 11, try again later. 1024 by default. */
  readonly maxConnections?: number;
  /** Within which a connection must have sent its request; 10 000 by default. */
  readonly requestTimeoutMs?: number;
}

export interface CniServerDeps {
  readonly log: Logger;
  readonly handler: CniHandler;
}

/** Another agent serves the same path. */
export class CniServerError extends MyelinError<'AlreadyServed'> {}

/** Serves cni.sock: one request and one reply per connection, both as wire.ts frames them. */
export class CniServer {
  readonly #options: CniServerOptions;
  readonly #deps: CniServerDeps;
  readonly #server: Server;
  readonly #idle = new Set<Socket>();
  readonly #inFlight = new Set<Promise<void>>();

  constructor(options: CniServerOptions, deps: CniServerDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#server = createServer((socket) => this.#accept(socket));
    this.#server.maxConnections = options.maxConnections ?? 1024;
  }

  /** @throws {CniServerError} `AlreadyServed`; whatever the system says of a path that cannot be bound. */
  async start(): Promise<void> {
    const { path } = this.#options;
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    if (await isServed(path)) throw new CniServerError('AlreadyServed', `another process serves ${path}: end it first`);
    rmSync(path, { force: true });
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.once('listening', resolve);
      // The socket is made within listen(), so that nobody else can ever have connected.
      const umask = process.umask(0o177);
      try {
        this.#server.listen(path);
      } finally {
        process.umask(umask);
      }
    });
    chmodSync(path, 0o600);
  }

  /** Accepts no more, and ends when the requests under way have been answered. */
  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#idle) socket.destroy();
    await Promise.all(this.#inFlight);
    await closed;
  }

  #accept(socket: Socket): void {
    const reader = new FrameReader(maxRequestBytes);
    this.#idle.add(socket);
    socket.setTimeout(this.#options.requestTimeoutMs ?? 10_000, () => socket.destroy());
    socket.on('close', () => this.#idle.delete(socket));
    // A plugin that was killed is of no interest: its runtime calls DEL.
    socket.on('error', () => {});
    const onData = (chunk: Buffer) => {
      try {
        const request = reader.push(chunk);
        if (request === undefined) return;
        socket.off('data', onData);
        this.#take(socket, request.message);
      } catch (error) {
        socket.off('data', onData);
        this.#reply(socket, { error: toCniError(error, 'DecodingFailure', 'failed to decode the request').body });
      }
    };
    socket.on('data', onData);
  }

  #take(socket: Socket, message: unknown): void {
    this.#idle.delete(socket);
    socket.setTimeout(0);
    const job = this.#answer(message).then((reply) => this.#reply(socket, reply));
    this.#inFlight.add(job);
    void job.finally(() => this.#inFlight.delete(job));
  }

  #reply(socket: Socket, reply: Reply): void {
    socket.end(encodeFrame(reply), () => socket.destroy());
  }

  async #answer(message: unknown): Promise<Reply> {
    const started = performance.now();
    const about = { command: '', containerId: '' };
    try {
      const request = parseRequest(readRaw(message));
      about.command = request.command;
      about.containerId = request.containerId;
      const result = await this.#dispatch(request);
      this.#deps.log.info({ ...about, ms: Math.round(performance.now() - started) }, 'CNI request served');
      return { result: result ?? null };
    } catch (cause) {
      const error = toCniError(cause, 'Internal', 'the agent failed');
      this.#deps.log.warn({ ...about, error: error.body, cause }, 'CNI request refused');
      return { error: error.body };
    }
  }

  async #dispatch(request: CniRequest): Promise<unknown> {
    const { handler } = this.#deps;
    switch (request.command) {
      case 'ADD':
        return handler.add(request);
      case 'DEL':
        return handler.del(request);
      case 'CHECK':
        return handler.check(request);
      case 'GC':
        return handler.gc(request);
      case 'STATUS':
        return handler.status();
    }
  }
}

/** @throws {CniError} `DecodingFailure` */
function readRaw(message: unknown): RawRequest {
  const fields =
    typeof message === 'object' && message !== null ? new Map<string, unknown>(Object.entries(message)) : new Map();
  const text = (key: string): string => {
    const value: unknown = fields.get(key) ?? '';
    if (typeof value !== 'string')
      throw new CniError('DecodingFailure', 'failed to decode the request', `${key} is not text`);
    return value;
  };
  return {
    command: text('command'),
    containerId: text('containerId'),
    netns: text('netns'),
    ifName: text('ifName'),
    args: text('args'),
    path: text('path'),
    config: fields.get('config'),
  };
}

function isServed(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
