import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import { TLSSocket } from 'node:tls';
import type { Logger } from 'pino';
import { z } from 'zod';
import { bundleDocument } from '../identity/bundle.ts';
import type { CertificateAuthority } from '../identity/ca.ts';
import { type ParsedCertificate, parseCertificate, toPem } from '../identity/certificate.ts';
import { IdentityError } from '../identity/error.ts';
import { adminOrganization } from '../identity/names.ts';
import { revocationRequestSchema } from '../identity/revocation.ts';
import { verifyPeer } from '../identity/verify.ts';
import { oid } from '../identity/x509.ts';
import { listenTcp } from '../kernel/listen.ts';
import { MyelinError } from '../model/error.ts';
import { deny } from './admission.ts';
import type { SvidService } from './svid-service.ts';

export interface CaServerOptions {
  readonly host: string;
  /** 0 takes any free one. */
  readonly port: number;
}

export interface CaServerDeps {
  readonly ca: CertificateAuthority;
  readonly service: SvidService;
  /** This server's own certificate and key, PEM. */
  readonly credentials: { readonly cert: string; readonly key: string };
  readonly logger: Logger;
  readonly now?: () => number;
}

interface Answer {
  readonly status: number;
  readonly body: unknown;
}

type Caller = { readonly node: string } | { readonly admin: true } | { readonly revoked: true } | undefined;

const largestBody = 16 * 1024;
const longestWaitSeconds = 60;

/**
 * The CA's service: HTTPS, TLS 1.3, both sides with certificates.
 *
 *   POST /v1/svid                     a node, for a pod that it hosts → {chain, bundle}; 403 {code, message}
 *   POST /v1/node                     a node, for itself: its next certificate → {chain, bundle}; 403 {code, message}
 *   GET  /v1/bundle[?after=N&wait=S]  anybody with a certificate, also a revoked one; with `after`, once it is newer or the time is up
 *   GET  /v1/ca                       an administrator: roots and counters
 *   POST /v1/ca/prepare|activate|retire|revoke   an administrator: rotation and revocation
 */
export class CaServer {
  readonly #options: CaServerOptions;
  readonly #deps: CaServerDeps;
  readonly #server: Server;
  readonly #peers = new WeakMap<TLSSocket, ParsedCertificate>();
  /** Requests that wait for a newer bundle. */
  readonly #waiting = new Set<() => void>();

  constructor(options: CaServerOptions, deps: CaServerDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#server = createServer(
      { ...this.#tls(), requestCert: true, rejectUnauthorized: true, minVersion: 'TLSv1.3' },
      (request, response) => void this.#serve(request, response),
    );
    this.#server.requestTimeout = 10_000;
    this.#server.headersTimeout = 10_000;
    this.#server.keepAliveTimeout = 60_000;
    this.#server.maxConnections = 4096;
    this.#server.on('tlsClientError', (error, socket) =>
      deps.service.refused(deny('not-a-node', error.message).reason, socket.remoteAddress),
    );
  }

  /** @returns The port that is listened on. @throws {ListenError} */
  listen(): Promise<number> {
    const { host, port } = this.#options;
    return listenTcp(this.#server, { host, port, option: '--listen' });
  }

  async close(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    for (const wake of this.#waiting) wake();
    this.#server.closeAllConnections();
    await promise;
  }

  /** To be called when the CA's bundle has changed: who is trusted, and who waits for it. */
  bundleChanged(): void {
    this.#server.setSecureContext({ ...this.#tls(), minVersion: 'TLSv1.3' });
    for (const wake of [...this.#waiting]) wake();
  }

  #tls() {
    const { ca, credentials } = this.#deps;
    return { ...credentials, ca: toPem(ca.bundle.roots) };
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const answer = await this.#answer(request).catch((error: unknown): Answer => {
      this.#deps.logger.error({ err: error, url: request.url }, 'a request failed');
      const code = error instanceof MyelinError ? error.code : 'Internal';
      return { status: 503, body: { code, message: 'the request cannot be served now' } };
    });
    if (response.destroyed) return;
    const text = JSON.stringify(answer.body);
    response.writeHead(answer.status, {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(text),
      // What is left of a body that was not read is not read for the next request.
      ...(request.complete ? {} : { connection: 'close' }),
    });
    response.end(text);
  }

  async #answer(request: IncomingMessage): Promise<Answer> {
    const url = new URL(request.url ?? '/', 'https://controller');
    const route = `${request.method} ${url.pathname}`;
    const caller = this.#callerOf(request);
    if (caller === undefined) return problem(403, 'not-a-node', 'the caller is neither a node nor an administrator');
    if (route === 'GET /v1/bundle') return await this.#bundle(url, request);
    // To hear that it is revoked is all that a revoked node is good for: it closes its own pods then.
    if ('revoked' in caller) {
      const denial = deny('revoked', 'the caller’s certificate is revoked').reason;
      this.#deps.service.refused(denial, request.socket.remoteAddress);
      return problem(403, denial.code, denial.message);
    }
    if (route === 'POST /v1/svid') {
      if (!('node' in caller)) return problem(403, 'not-a-node', 'only nodes have pods');
      const body = await readJson(request);
      if (!body.ok) return problem(400, 'bad-request', body.why);
      const signed = await this.#deps.service.sign(caller.node, body.value);
      return signed.ok ? { status: 200, body: signed.value } : { status: 403, body: signed.reason };
    }
    if (route === 'POST /v1/node') {
      if (!('node' in caller)) return problem(403, 'not-a-node', 'only a node renews a node’s certificate');
      const body = await readJson(request);
      if (!body.ok) return problem(400, 'bad-request', body.why);
      const signed = await this.#deps.service.signNode(caller.node, body.value);
      return signed.ok ? { status: 200, body: signed.value } : { status: 403, body: signed.reason };
    }
    if (url.pathname === '/v1/ca' || url.pathname.startsWith('/v1/ca/')) {
      if (!('admin' in caller)) return problem(403, 'not-an-administrator', 'only administrators may do this');
      return await this.#administer(route, request);
    }
    return problem(404, 'not-found', `there is no ${route}`);
  }

  #callerOf(request: IncomingMessage): Caller {
    const { socket } = request;
    if (!(socket instanceof TLSSocket)) return undefined;
    const certificate = this.#certificateOf(socket);
    if (certificate === undefined) return undefined;
    const { ca, service, now = Date.now } = this.#deps;
    const { bundle } = ca;
    // At every request: a connection outlives revocations.
    const verified = verifyPeer([certificate], bundle, { kind: 'node' }, now());
    if (verified.ok) return { node: verified.value.node };
    const isAdmin =
      socket.authorized &&
      !certificate.ca &&
      !bundle.revocations.serials.has(certificate.serialNumber) &&
      certificate.extendedKeyUsage?.includes(oid.clientAuth) === true &&
      certificate.subject.organizations.includes(adminOrganization);
    if (isAdmin) return { admin: true };
    if (verified.reason.code === 'revoked') return { revoked: true };
    service.refused(deny('not-a-node', verified.reason.detail).reason, socket.remoteAddress);
    return undefined;
  }

  #certificateOf(socket: TLSSocket): ParsedCertificate | undefined {
    const known = this.#peers.get(socket);
    if (known !== undefined) return known;
    const presented = socket.getPeerX509Certificate();
    if (presented === undefined) return undefined;
    try {
      const parsed = parseCertificate(presented.raw);
      this.#peers.set(socket, parsed);
      return parsed;
    } catch {
      return undefined;
    }
  }

  async #bundle(url: URL, request: IncomingMessage): Promise<Answer> {
    const { ca } = this.#deps;
    const after = z.coerce
      .number()
      .int()
      .catch(-1)
      .parse(url.searchParams.get('after') ?? -1);
    const wait = z.coerce
      .number()
      .min(0)
      .max(longestWaitSeconds)
      .catch(0)
      .parse(url.searchParams.get('wait') ?? 0);
    if (ca.bundle.sequence <= after && wait > 0)
      await new Promise<void>((resolve) => {
        const done = () => {
          clearTimeout(timer);
          this.#waiting.delete(done);
          request.socket.off('close', done);
          resolve();
        };
        const timer = setTimeout(done, wait * 1000);
        this.#waiting.add(done);
        request.socket.once('close', done);
      });
    return { status: 200, body: bundleDocument(ca.bundle) };
  }

  async #administer(route: string, request: IncomingMessage): Promise<Answer> {
    const { ca, service, logger } = this.#deps;
    const show = (): Answer => ({
      status: 200,
      body: { trustDomain: ca.trustDomain, sequence: ca.bundle.sequence, roots: ca.roots, ...service.statistics() },
    });
    const steps: Readonly<Record<string, () => Promise<void>>> = {
      'POST /v1/ca/prepare': () => ca.prepare(),
      'POST /v1/ca/activate': () => ca.activate(),
      'POST /v1/ca/retire': () => ca.retire(),
    };
    if (route === 'GET /v1/ca') return show();
    try {
      const step = steps[route];
      if (step !== undefined) await step();
      else if (route === 'POST /v1/ca/revoke') {
        const body = await readJson(request);
        const revoked = body.ok ? revocationRequestSchema.safeParse(body.value) : undefined;
        if (revoked?.success !== true) return problem(400, 'bad-request', 'expected {serials, podUids, spiffeIds}');
        await ca.revoke(revoked.data);
      } else return problem(404, 'not-found', `there is no ${route}`);
    } catch (error) {
      if (error instanceof IdentityError && error.code === 'CaState') return problem(409, 'CaState', error.message);
      throw error;
    }
    logger.info({ step: route, sequence: ca.bundle.sequence }, 'the CA was administered');
    this.bundleChanged();
    return show();
  }
}

function problem(status: number, code: string, message: string): Answer {
  return { status, body: { code, message } };
}

type Body = { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly why: string };

async function readJson(request: IncomingMessage): Promise<Body> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request) {
    if (!(chunk instanceof Buffer)) continue;
    length += chunk.length;
    if (length > largestBody) return { ok: false, why: 'the body is over 16 KiB' };
    chunks.push(chunk);
  }
  try {
    return { ok: true, value: JSON.parse(Buffer.concat(chunks).toString('utf8')) };
  } catch {
    return { ok: false, why: 'the body is not JSON' };
  }
}
