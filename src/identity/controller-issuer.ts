import { Agent, request as httpsRequest } from 'node:https';
import { z } from 'zod';
import { bundleSchema, parseBundle, type TrustBundle } from './bundle.ts';
import { messageOf } from './certificate.ts';
import { IdentityError } from './error.ts';
import type { Issued, IssueRequest, Issuer } from './svid.ts';

export interface ControllerIssuerOptions {
  /** Base URL, such as https://controller:7443. */
  readonly url: string;
  /** Default 10 s for a whole request. */
  readonly timeoutMs?: number;
}

/** What a node shows the controller. */
export interface ClientCredentials {
  /** PEM, leaf first. */
  readonly chain: string;
  /** PKCS#8 PEM. */
  readonly privateKey: string;
}

export interface ControllerIssuerDeps {
  /** Asked at every new connection, so that a renewed certificate is taken up. */
  readonly credentials: () => ClientCredentials;
  /** PEM of the roots that the controller's certificate is checked against. */
  readonly roots: () => string;
}

const issuedSchema = z.strictObject({ chain: z.string(), bundle: bundleSchema });
const refusedSchema = z.object({ code: z.string(), message: z.string() });
const largestAnswer = 8 * 1024 * 1024;

/** The body of POST /v1/svid. */
export interface SvidRequestBody {
  readonly pod: { readonly namespace: string; readonly name: string; readonly uid: string };
  readonly serviceAccount: string;
  readonly addresses: readonly string[];
  readonly csr: string;
  readonly lifetimeSeconds?: number | undefined;
}

/** The embedded issuer seen from a node: the controller's CA service over HTTPS, proved by the node's certificate. */
export class ControllerIssuer implements Issuer {
  readonly #url: URL;
  readonly #timeoutMs: number;
  readonly #deps: ControllerIssuerDeps;
  /** Few connections, kept: an agent that starts with a hundred pods asks for them through these. */
  #clockSkewMs: number | undefined;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 4, minVersion: 'TLSv1.3' });

  constructor(options: ControllerIssuerOptions, deps: ControllerIssuerDeps) {
    this.#url = new URL(options.url);
    this.#timeoutMs = options.timeoutMs ?? 10_000;
    this.#deps = deps;
  }

  async issue(request: IssueRequest, signal: AbortSignal): Promise<Issued> {
    const body: SvidRequestBody = {
      pod: { namespace: request.pod.namespace, name: request.pod.name, uid: request.pod.uid },
      serviceAccount: request.serviceAccount,
      addresses: request.addresses,
      csr: request.csr,
      lifetimeSeconds: request.lifetimeMs === undefined ? undefined : Math.ceil(request.lifetimeMs / 1000),
    };
    return this.#understand(issuedSchema, await this.#ask('POST', '/v1/svid', body, signal, this.#timeoutMs));
  }

  /** The node's own next certificate. */
  async issueNode(csr: string, signal: AbortSignal): Promise<Issued> {
    return this.#understand(issuedSchema, await this.#ask('POST', '/v1/node', { csr }, signal, this.#timeoutMs));
  }

  /**
   * The controller's trust bundle, at once or when it is newer than `after`.
   * @param after A sequence number: the controller then answers when it has a newer bundle, or after `waitSeconds`.
   */
  async bundle(
    signal: AbortSignal,
    after?: { readonly sequence: number; readonly waitSeconds: number },
  ): Promise<TrustBundle> {
    const query = after === undefined ? '' : `?after=${after.sequence}&wait=${after.waitSeconds}`;
    const timeoutMs = this.#timeoutMs + (after?.waitSeconds ?? 0) * 1000;
    const answer = await this.#ask('GET', `/v1/bundle${query}`, undefined, signal, timeoutMs);
    return parseBundle(this.#understand(bundleSchema, answer));
  }

  /** How far the controller's clock was ahead of this one's at its last answer, give or take a second; undefined before. */
  get clockSkewMs(): number | undefined {
    return this.#clockSkewMs;
  }

  /** Closes idle connections; requests under way are their callers' to abort. */
  close(): void {
    this.#agent.destroy();
  }

  #understand<T>(schema: z.ZodType<T>, answer: { status: number; text: string }): T {
    let json: unknown;
    try {
      json = JSON.parse(answer.text);
    } catch {
      json = undefined;
    }
    if (answer.status === 200) {
      const parsed = schema.safeParse(json);
      if (parsed.success) return parsed.data;
      throw new IdentityError('IssuerUnreachable', `${this.#url.origin} answered something else than a certificate`);
    }
    const refused = refusedSchema.safeParse(json);
    if (!refused.success || answer.status >= 500)
      throw new IdentityError(
        'IssuerUnreachable',
        `${this.#url.origin} answered with status ${answer.status}: ${refused.data?.message ?? 'no reason given'}`,
      );
    throw new IdentityError('IssueRefused', `the CA refused: ${refused.data.message}`, {
      data: { reason: refused.data.code, status: answer.status },
    });
  }

  #ask(
    method: 'GET' | 'POST',
    path: string,
    body: unknown,
    signal: AbortSignal,
    timeoutMs: number,
  ): Promise<{ status: number; text: string }> {
    const { chain, privateKey } = this.#deps.credentials();
    const { promise, resolve, reject } = Promise.withResolvers<{ status: number; text: string }>();
    const unreachable = (cause: unknown) =>
      reject(
        new IdentityError('IssuerUnreachable', `${this.#url.origin} cannot be asked: ${messageOf(cause)}`, { cause }),
      );
    const request = httpsRequest(
      new URL(path, this.#url),
      {
        method,
        agent: this.#agent,
        cert: chain,
        key: privateKey,
        ca: this.#deps.roots(),
        minVersion: 'TLSv1.3',
        headers: body === undefined ? {} : { 'content-type': 'application/json' },
        signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
      },
      (response) => {
        const said = Date.parse(response.headers.date ?? '');
        if (!Number.isNaN(said)) this.#clockSkewMs = said - Date.now();
        const chunks: Buffer[] = [];
        let length = 0;
        response.on('data', (chunk: Buffer) => {
          length += chunk.length;
          if (length > largestAnswer) response.destroy(new Error('the answer is over 8 MiB'));
          else chunks.push(chunk);
        });
        response.on('error', unreachable);
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') }),
        );
      },
    );
    request.on('error', unreachable);
    request.end(body === undefined ? undefined : JSON.stringify(body));
    return promise;
  }
}
