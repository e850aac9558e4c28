import type { IncomingMessage, ServerResponse } from 'node:http';
import { parse as parseYaml, YAMLParseError } from 'yaml';
import { checkNesting } from '../decode.ts';
import { badRequest, type Status, StatusError } from '../status.ts';
import { decodeKubeProtobuf } from './kube-protobuf.ts';

const bodyLimit = 3 * 1024 * 1024;

/** One request and its answer. */
export class Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly #warnings = new Set<string>();

  constructor(request: IncomingMessage, response: ServerResponse) {
    this.request = request;
    this.response = response;
    const url = request.url ?? '/';
    const mark = url.indexOf('?');
    this.path = mark < 0 ? url : url.slice(0, mark);
    this.query = new URLSearchParams(mark < 0 ? '' : url.slice(mark + 1));
  }

  get method(): string {
    return this.request.method ?? 'GET';
  }

  /** The media type of the body, without its parameters. */
  get contentType(): string {
    return (this.request.headers['content-type'] ?? 'application/json').split(';')[0]?.trim() ?? '';
  }

  /** Adds a line that kubectl prints to whoever asked. */
  warn(message: string): void {
    this.#warnings.add(message);
  }

  /** @returns The query parameter, undefined where it is absent or empty. */
  parameter(name: string): string | undefined {
    return this.query.get(name) || undefined;
  }

  /** @throws {StatusError} `BadRequest` */
  flag(name: string): boolean | undefined {
    const text = this.parameter(name);
    if (text === undefined) return undefined;
    if (text === 'true' || text === '1') return true;
    if (text === 'false' || text === '0') return false;
    throw badRequest(`query parameter ${name}: ${JSON.stringify(text)} is not true or false`);
  }

  /** @throws {StatusError} `BadRequest` */
  number(name: string): number | undefined {
    const text = this.parameter(name);
    if (text === undefined) return undefined;
    if (!/^\d{1,15}$/.test(text)) throw badRequest(`query parameter ${name}: ${JSON.stringify(text)} is not a number`);
    return Number(text);
  }

  /** @throws {StatusError} `RequestEntityTooLarge` */
  async bytes(): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let size = 0;
    await new Promise<void>((done, fail) => {
      const take = (chunk: Buffer) => {
        size += chunk.length;
        chunks.push(chunk);
        if (size <= bodyLimit) return;
        // What is still to come is read and thrown away: a client that is cut off while it writes never sees the answer.
        this.request.off('data', take).resume();
        fail(new StatusError(413, 'RequestEntityTooLarge', `Request entity too large: limit is ${bodyLimit} bytes`));
      };
      this.request.on('data', take).on('end', done).on('error', fail);
      this.request.on('close', () => fail(new Error('the connection closed within the body')));
    });
    return Buffer.concat(chunks);
  }

  /** Reads the body as JSON, or as YAML where it says so. @returns undefined for an empty one. @throws {StatusError} */
  async body(): Promise<unknown> {
    if (this.contentType === 'application/vnd.kubernetes.protobuf') {
      const object = decodeKubeProtobuf(await this.bytes());
      checkNesting(object);
      return object;
    }
    const text = (await this.bytes()).toString('utf8');
    if (text.trim() === '') return undefined;
    const value = this.contentType.endsWith('yaml') ? readYaml(text) : readJson(text);
    checkNesting(value);
    return value;
  }

  send(code: number, value: unknown): void {
    this.sendText(code, JSON.stringify(value));
  }

  sendText(code: number, text: string | Buffer, contentType = 'application/json'): void {
    if (this.response.headersSent) return;
    this.response.writeHead(code, {
      'content-type': contentType,
      'content-length': Buffer.byteLength(text),
      'cache-control': 'no-cache, private',
      ...this.warningHeader(),
    });
    this.response.end(this.method === 'HEAD' ? undefined : text);
  }

  sendStatus(status: Status): void {
    this.send(status.code, status);
  }

  /** The warnings as RFC 7234 writes them, which kubectl prints. */
  warningHeader(): Record<string, string[]> {
    if (this.#warnings.size === 0) return {};
    const lines = [...this.#warnings].map((text) => `299 - ${JSON.stringify(text.replaceAll(/[^\x20-\x7e]/g, '?'))}`);
    return { warning: lines };
  }
}

function readJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw badRequest(`the body is not JSON: ${error instanceof Error ? error.message : String(error)}`, error);
  }
}

function readYaml(text: string): unknown {
  try {
    return parseYaml(text, { maxAliasCount: 100 });
  } catch (error) {
    if (error instanceof YAMLParseError || error instanceof ReferenceError)
      throw badRequest(`the body is not YAML: ${error.message}`, error);
    throw error;
  }
}
