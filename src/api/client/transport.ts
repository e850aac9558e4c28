import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { Agent, request as httpsRequest } from 'node:https';
import { ApiError } from './error.ts';
import { failureOf } from './failure.ts';
import type { ApiEndpoint } from './types.ts';

export interface ApiRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly path: string;
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>;
  readonly body?: unknown;
  readonly contentType?: string;
  readonly signal?: AbortSignal | undefined;
}

const answerTimeoutMs = 30_000;
const largestLine = 64 * 1024 * 1024;

/** HTTPS to one API server: connections are kept, errors are ApiErrors. */
export class Transport {
  #endpoint: ApiEndpoint;
  // A watch holds its connection for minutes; it must not take the place of a request.
  readonly #agents = {
    calls: new Agent({ keepAlive: true, maxSockets: 16, scheduling: 'lifo' }),
    watches: new Agent({ keepAlive: true }),
  };

  constructor(endpoint: ApiEndpoint) {
    this.#endpoint = endpoint;
  }

  /** Uses this endpoint, or these credentials, for connections from now on. */
  use(endpoint: ApiEndpoint): void {
    this.#endpoint = endpoint;
  }

  /** @returns The answer's JSON. @throws {ApiError} */
  async call(request: ApiRequest): Promise<unknown> {
    try {
      return await this.#callOnce(request);
    } catch (error) {
      // The server closed a kept connection just as it was used again: reading once more changes nothing.
      if (request.method !== 'GET' || !(error instanceof ApiError) || error.data.reused !== true) throw error;
      return this.#callOnce(request);
    }
  }

  async #callOnce(request: ApiRequest): Promise<unknown> {
    const timeout = AbortSignal.timeout(answerTimeoutMs);
    const signal = request.signal === undefined ? timeout : AbortSignal.any([request.signal, timeout]);
    const response = await this.#open(request, this.#agents.calls, signal);
    const text = await textOf(response).catch((error: unknown) => {
      throw this.#broken(request, error, signal, false);
    });
    const body = this.#parse(request, text, response);
    if (isSuccess(response)) return body;
    throw failureOf(response.statusCode ?? 0, body, contextOf(request));
  }

  /**
   * Opens a watch.
   * @param idleMs No byte for so long ends it with `Unreachable`.
   * @param onOpen Called when the server has said yes.
   * @returns The lines of the answer; leaving the loop closes the connection.
   */
  async *lines(request: ApiRequest, idleMs: number, onOpen?: () => void): AsyncGenerator<string> {
    const idle = new AbortController();
    const signal = request.signal === undefined ? idle.signal : AbortSignal.any([request.signal, idle.signal]);
    const timer = setTimeout(() => idle.abort(new Error(`nothing came for ${idleMs} ms`)), idleMs);
    try {
      const response = await this.#open(request, this.#agents.watches, signal);
      if (!isSuccess(response))
        throw failureOf(
          response.statusCode ?? 0,
          this.#parse(request, await textOf(response), response),
          contextOf(request),
        );
      onOpen?.();
      yield* splitLines(response, () => timer.refresh());
    } catch (error) {
      throw error instanceof ApiError ? error : this.#broken(request, error, signal, false);
    } finally {
      clearTimeout(timer);
      idle.abort();
    }
  }

  close(): void {
    this.#agents.calls.destroy();
    this.#agents.watches.destroy();
  }

  async #open(request: ApiRequest, agent: Agent, signal: AbortSignal): Promise<IncomingMessage> {
    const { url, ca, cert, key, token, serverName, socketPath } = this.#endpoint;
    const body = request.body === undefined ? undefined : JSON.stringify(request.body);
    const outgoing = httpsRequest(new URL(request.path + queryOf(request.query), url), {
      method: request.method,
      agent,
      signal,
      ca,
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
      ...(serverName === undefined ? {} : { servername: serverName }),
      ...(socketPath === undefined ? {} : { socketPath }),
      minVersion: 'TLSv1.2',
      headers: {
        accept: 'application/json',
        'user-agent': 'myelin',
        ...(token === undefined ? {} : { authorization: `Bearer ${token()}` }),
        ...(body === undefined
          ? {}
          : { 'content-type': request.contentType ?? 'application/json', 'content-length': Buffer.byteLength(body) }),
      },
    });
    // What goes wrong before the answer is thrown below, and later the answer itself says it.
    outgoing.on('error', () => {});
    outgoing.end(body);
    try {
      const [response]: IncomingMessage[] = await once(outgoing, 'response', { signal });
      if (response === undefined) throw new Error('no response');
      return response;
    } catch (error) {
      outgoing.destroy();
      throw this.#broken(request, error, signal, outgoing.reusedSocket);
    }
  }

  #broken(request: ApiRequest, error: unknown, signal: AbortSignal, reused: boolean): ApiError {
    if (request.signal?.aborted === true)
      return new ApiError('Aborted', `${contextOf(request)} was given up`, { cause: error });
    const cause: unknown = signal.aborted ? signal.reason : error;
    const why = cause instanceof Error ? cause.message : String(cause);
    return new ApiError(
      'Unreachable',
      `${contextOf(request)}: the API server at ${this.#endpoint.url} cannot be reached: ${why}`,
      {
        cause,
        data: { url: this.#endpoint.url, reused },
      },
    );
  }

  #parse(request: ApiRequest, text: string, response: IncomingMessage): unknown {
    try {
      return JSON.parse(text);
    } catch (cause) {
      if (!isSuccess(response)) return { message: text.slice(0, 200) };
      throw new ApiError('Malformed', `${contextOf(request)}: the answer is not JSON`, { cause });
    }
  }
}

function isSuccess({ statusCode = 0 }: IncomingMessage): boolean {
  return statusCode >= 200 && statusCode < 300;
}

function contextOf({ method, path }: ApiRequest): string {
  return `${method} ${path}`;
}

function queryOf(query: ApiRequest['query']): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) if (value !== undefined) parameters.set(name, String(value));
  const text = parameters.toString();
  return text === '' ? '' : `?${text}`;
}

async function textOf(response: IncomingMessage): Promise<string> {
  response.setEncoding('utf8');
  const parts: string[] = [];
  for await (const part of response) parts.push(String(part));
  return parts.join('');
}

async function* splitLines(response: IncomingMessage, alive: () => void): AsyncGenerator<string> {
  response.setEncoding('utf8');
  let parts: string[] = [];
  let size = 0;
  for await (const chunk of response) {
    alive();
    const lines = String(chunk).split('\n');
    const [first = '', ...rest] = lines;
    parts.push(first);
    size += first.length;
    if (size > largestLine) throw new ApiError('Malformed', 'one event of a watch is larger than 64 MiB');
    for (const next of rest) {
      const line = parts.join('');
      parts = [next];
      size = next.length;
      if (line !== '') yield line;
    }
  }
}
