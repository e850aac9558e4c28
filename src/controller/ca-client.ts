import { request } from 'node:https';
import { z } from 'zod';
import { MyelinError } from '../model/error.ts';

export class CaClientError extends MyelinError<'CaRefused' | 'CaUnreachable'> {}

export interface CaEndpoint {
  /** Base URL of the controller. */
  readonly url: string;
  /** PEM: the roots that the controller's certificate is checked against, and an administrator's certificate and key. */
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  /** A Unix socket to connect to in place of the URL's host. */
  readonly socketPath?: string;
}

const statusSchema = z.object({
  trustDomain: z.string(),
  sequence: z.number(),
  roots: z.array(
    z.object({
      id: z.string(),
      status: z.enum(['next', 'signing', 'previous']),
      publishedAt: z.number(),
      issuedUntil: z.number(),
      /** When a `next` root may sign. */
      readyAt: z.number().optional(),
    }),
  ),
  issued: z.number(),
  denied: z.record(z.string(), z.number()),
});
/** Where the CA stands. Times are Unix milliseconds. */
export type CaStatus = z.infer<typeof statusSchema>;

const problemSchema = z.object({ code: z.string(), message: z.string() });
const timeoutMs = 10_000;

/** What an administrator asks of the controller's CA. @throws {CaClientError} of every method */
export class CaClient {
  readonly #endpoint: CaEndpoint;

  constructor(endpoint: CaEndpoint) {
    this.#endpoint = endpoint;
  }

  status(): Promise<CaStatus> {
    return this.#ask('GET', '/v1/ca');
  }

  /** One step of a rotation: publish a new root, let it sign, take the old one out. */
  step(step: 'prepare' | 'activate' | 'retire'): Promise<CaStatus> {
    return this.#ask('POST', `/v1/ca/${step}`);
  }

  async #ask(method: 'GET' | 'POST', path: string): Promise<CaStatus> {
    const { url, ca, cert, key, socketPath } = this.#endpoint;
    const { promise, resolve, reject } = Promise.withResolvers<{ status: number; text: string }>();
    const unreachable = (cause: Error) =>
      reject(
        new CaClientError('CaUnreachable', `the controller at ${url} cannot be asked: ${cause.message}`, { cause }),
      );
    request(
      new URL(path, url),
      {
        method,
        ca,
        cert,
        key,
        minVersion: 'TLSv1.3',
        agent: false,
        signal: AbortSignal.timeout(timeoutMs),
        ...(socketPath === undefined ? {} : { socketPath }),
      },
      (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk;
        });
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
        response.on('error', unreachable);
      },
    )
      .on('error', unreachable)
      .end();
    const { status, text } = await promise;
    const json = parseJson(text);
    if (status === 200) {
      const parsed = statusSchema.safeParse(json);
      if (parsed.success) return parsed.data;
    }
    const problem = problemSchema.safeParse(json);
    throw new CaClientError('CaRefused', problem.data?.message ?? `the controller answered with status ${status}`, {
      data: { status, ...problem.data },
    });
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
