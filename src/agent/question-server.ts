import { chmodSync, rmSync } from 'node:fs';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Logger } from 'pino';
import { z } from 'zod';
import { MyelinError } from '../model/error.ts';
import type { FlowEvent } from '../model/flow.ts';
import { type FlowFilter, parseFilter, parseLast } from '../observe/filter.ts';
import type { FlowLog } from '../observe/flow-log.ts';
import {
  type EndpointReport,
  type KeyReport,
  type NameReport,
  pastHeader,
  type StatusReport,
  type TraceAnswer,
  type TraceQuestion,
  type TunnelReport,
  traceQuestionSchema,
  type WhyAnswer,
  type WhyQuestion,
  whyQuestionSchema,
} from './wire.ts';

/** Who knows the answers. */
export interface Answers {
  status(): Promise<StatusReport>;
  tunnels(): Promise<TunnelReport[]>;
  endpoints(): EndpointReport[];
  names(): NameReport[];
  why(question: WhyQuestion): WhyAnswer;
  metrics(): Promise<string>;
  trace(question: TraceQuestion): Promise<TraceAnswer>;
  /** Another proxy takes the place of the one that there is, which goes on until its connections have ended. */
  replaceProxy(): Promise<void>;
  /** @throws {MyelinError} `NotAllowed` */
  keys(): Promise<KeyReport[]>;
  readonly flows: FlowLog;
}

// To import it would be to evaluate all that it exports, WebSocket too, for which Node loads a second HTTP client (13 MiB).
const { createServer } = process.getBuiltinModule('node:http');
const maxQuestionBytes = 64 * 1024;
/** What a follower may lag behind before flows are left out for it, and counted. */
const maxBacklogBytes = 4 * 1024 * 1024;

/** agent.sock: what people and scrapers ask of an agent, as HTTP and JSON over a Unix socket that only root can open. */
export class QuestionServer {
  readonly #answers: Answers;
  readonly #log: Logger;
  readonly #server: Server;

  constructor(answers: Answers, log: Logger) {
    this.#answers = answers;
    this.#log = log;
    this.#server = createServer((request, response) => {
      this.#route(request, response).catch((error: unknown) => this.#refuse(response, error));
    });
  }

  /** @throws {Error} whatever the system says of a path that cannot be bound */
  async start(path: string): Promise<void> {
    rmSync(path, { force: true });
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(path, resolve);
    });
    chmodSync(path, 0o600);
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  async #route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://agent');
    const answers = this.#answers;
    switch (`${request.method} ${url.pathname}`) {
      case 'GET /status':
        return reply(response, await answers.status());
      case 'GET /tunnels':
        return reply(response, await answers.tunnels());
      case 'GET /endpoints':
        return reply(response, answers.endpoints());
      case 'GET /names':
        return reply(response, answers.names());
      case 'GET /metrics':
        response.setHeader('content-type', 'text/plain; version=0.0.4').end(await answers.metrics());
        return;
      case 'GET /flows': {
        const query = Object.fromEntries(url.searchParams);
        const filter = parseFilter(query);
        const last = query.last === undefined ? undefined : parseLast(query.last);
        if (query.follow === undefined) return reply(response, answers.flows.recent(filter, last ?? 50));
        return this.#follow(response, filter, last ?? 0);
      }
      case 'POST /tunnels/trace':
        return reply(response, await answers.trace(traceQuestionSchema.parse(await readJson(request))));
      case 'POST /proxy/replace':
        await answers.replaceProxy();
        return reply(response, {});
      case 'POST /debug/keys':
        return reply(response, await answers.keys());
      case 'POST /why':
        return reply(response, answers.why(whyQuestionSchema.parse(await readJson(request))));
      default:
        response.statusCode = 404;
        return reply(response, { code: 'NotFound', message: `there is no ${request.method} ${url.pathname}` });
    }
  }

  /** The newest `last` flows and all that come: both in one turn of the event loop, so that none falls between. */
  #follow(response: ServerResponse, filter: FlowFilter, last: number): void {
    const past = this.#answers.flows.recent(filter, last);
    response.setHeader('content-type', 'application/x-ndjson');
    response.setHeader(pastHeader, past.length);
    response.flushHeaders();
    for (const flow of past) response.write(`${JSON.stringify(flow)}\n`);
    const stop = this.#answers.flows.follow(filter, (flow: FlowEvent) => {
      if (response.writableLength > maxBacklogBytes) this.#answers.flows.countSlow();
      else response.write(`${JSON.stringify(flow)}\n`);
    });
    response.once('close', stop);
  }

  #refuse(response: ServerResponse, error: unknown): void {
    const known = error instanceof MyelinError || error instanceof z.ZodError;
    if (!known) this.#log.error({ err: error }, 'a question could not be answered');
    if (response.headersSent) {
      response.destroy();
      return;
    }
    response.statusCode = known ? 400 : 500;
    const message =
      error instanceof z.ZodError ? z.prettifyError(error) : error instanceof Error ? error.message : String(error);
    reply(response, { code: error instanceof MyelinError ? error.code : 'BadQuestion', message });
  }
}

function reply(response: ServerResponse, value: unknown): void {
  response.setHeader('content-type', 'application/json').end(JSON.stringify(value));
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request) {
    const bytes = Buffer.from(chunk);
    length += bytes.length;
    if (length > maxQuestionBytes)
      throw new MyelinError('BadQuestion', `a question has at most ${maxQuestionBytes} bytes`);
    chunks.push(bytes);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch (cause) {
    throw new MyelinError('BadQuestion', 'the question is not JSON', { cause });
  }
}
