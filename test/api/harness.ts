import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { pino } from 'pino';
import { ApiClient } from '../../src/api/client/client.ts';
import { writeKubeconfig } from '../../src/api/client/kubeconfig.ts';
import { isObject, type JsonObject, objectOr } from '../../src/api/json.ts';
import { type ApiServer, type ApiServerOptions, startApiServer } from '../../src/api/server/server.ts';
import { type Pem, TestPki } from './pki.ts';

export const silent = pino({ level: 'silent' });

export interface Answer {
  readonly status: number;
  readonly headers: Record<string, string | string[] | undefined>;
  readonly text: string;
  /** The body as an object; empty where it is none. */
  readonly json: JsonObject;
}

export interface RawRequest {
  readonly method?: string;
  readonly body?: unknown;
  readonly headers?: Record<string, string>;
  /** Who asks; `null` for nobody. Default the admin. */
  readonly as?: Pem | null;
}

/** A server of its own with its own root, database and admin, gone with the test. */
export class TestApi {
  readonly directory: string;
  readonly pki: TestPki;
  readonly adminPem: Pem;
  readonly client: ApiClient;
  server: ApiServer;
  readonly #options: Omit<ApiServerOptions, 'listen'>;

  private constructor(
    directory: string,
    pki: TestPki,
    adminPem: Pem,
    options: Omit<ApiServerOptions, 'listen'>,
    server: ApiServer,
  ) {
    this.directory = directory;
    this.pki = pki;
    this.adminPem = adminPem;
    this.#options = options;
    this.server = server;
    this.client = this.clientAs(adminPem);
  }

  static async start(t: Pick<TestContext, 'after'>, options: Partial<ApiServerOptions> = {}): Promise<TestApi> {
    const directory = mkdtempSync(join(tmpdir(), `myelin-api-${process.pid}-`));
    t.after(() => rmSync(directory, { recursive: true, force: true }));
    const pki = await TestPki.create();
    const full = { file: join(directory, 'api.db'), ...options, tls: { ...(await pki.server()), clientCa: pki.ca } };
    const server = await startApiServer({ ...full, listen: { host: '127.0.0.1', port: 0 } }, { logger: silent });
    const api = new TestApi(directory, pki, await pki.admin(), full, server);
    t.after(() => api.#close());
    return api;
  }

  async #close(): Promise<void> {
    this.client.close();
    await this.server.close();
  }

  clientAs(pem: Pem): ApiClient {
    return new ApiClient(this.endpointAs(pem));
  }

  endpointAs(pem: Pem) {
    return { url: this.server.url, ca: this.pki.ca, cert: pem.cert, key: pem.key };
  }

  /** Stops the server, and starts one on the same port and file. */
  async restart(while_?: () => Promise<void>): Promise<void> {
    const { port } = this.server;
    await this.server.close();
    await while_?.();
    this.server = await startApiServer({ ...this.#options, listen: { host: '127.0.0.1', port } }, { logger: silent });
  }

  kubeconfig(pem: Pem = this.adminPem): string {
    const file = join(this.directory, `kubeconfig-${Math.random().toString(36).slice(2)}`);
    writeFileSync(file, writeKubeconfig(this.endpointAs(pem), 'test'));
    return file;
  }

  /** One request as it is, for what the client would not send and would not show. */
  async raw(
    path: string,
    { method = 'GET', body, headers = {}, as = this.adminPem }: RawRequest = {},
  ): Promise<Answer> {
    const payload = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
    const outgoing = request(new URL(path, this.server.url), {
      method,
      agent: false,
      ca: this.pki.ca,
      ...(as === null ? {} : { cert: as.cert, key: as.key }),
      headers: { ...(payload === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    });
    outgoing.end(payload);
    const [response] = await once(outgoing, 'response');
    response.setEncoding('utf8');
    let text = '';
    for await (const part of response) text += String(part);
    return { status: response.statusCode, headers: response.headers, text, json: parseObject(text) };
  }
}

function parseObject(text: string): JsonObject {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : {};
  } catch {
    return {};
  }
}

/** `field: reason` of each cause of a Status. */
export function causesOf({ json }: Answer): string[] {
  const { causes } = objectOr(json.details);
  return (Array.isArray(causes) ? causes : []).map((cause: unknown) => {
    const { field, reason } = objectOr(cause);
    return `${String(field)}: ${String(reason)}`;
  });
}

/** Waits until `ready` holds; what it returns, or throws, in the end. */
export async function eventually<T>(
  ready: () => T | undefined | Promise<T | undefined>,
  what: string,
  timeoutMs = 10_000,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const value = await ready();
    if (value !== undefined) return value;
    if (performance.now() > deadline) throw new Error(`${what}: not within ${timeoutMs} ms`);
    await new Promise((done) => setTimeout(done, 10));
  }
}

/** The smallest pod there can be. */
export function podNamed(
  name: string,
  extra: { namespace?: string; labels?: Record<string, string>; nodeName?: string } = {},
) {
  const { namespace = 'default', labels, nodeName } = extra;
  return {
    apiVersion: 'v1' as const,
    kind: 'Pod' as const,
    metadata: { name, namespace, ...(labels === undefined ? {} : { labels }) },
    spec: { containers: [{ name: 'c', image: 'image' }], ...(nodeName === undefined ? {} : { nodeName }) },
  };
}
