import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { setTimeout as wait } from 'node:timers/promises';
import type { Logger } from 'pino';
import { type BundleStore, parseBundle } from './bundle.ts';
import { messageOf, type ParsedCertificate, parseCertificates } from './certificate.ts';
import type { ClientCredentials } from './controller-issuer.ts';
import { buildCsr } from './csr.ts';
import { IdentityError } from './error.ts';
import type { Issued } from './svid.ts';
import { renewalDelayMs, retryDelayMs } from './svid-store.ts';
import { verifyPeer } from './verify.ts';

export interface NodeCertificateOptions {
  readonly node: string;
  /** PEM files. The certificate's is written when it is renewed; the key's never is. */
  readonly certFile: string;
  readonly keyFile: string;
}

export interface NodeCertificateDeps {
  /** Asks the CA, as this node, to sign for this node. */
  readonly issue: (csr: string, signal: AbortSignal) => Promise<Issued>;
  readonly bundles: BundleStore;
  readonly logger: Logger;
  /** Called when there is a new one. */
  readonly onRenewed: () => void;
  readonly now?: () => number;
  readonly random?: () => number;
  /** Rejects when the signal aborts. */
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<unknown>;
}

/** Node's timers end at 2^31 ms. */
const longestSleepMs = 0x7fff_ffff;

/**
 * The node's own certificate: its identity to the controller, to the API and to other nodes. Renewed after half of its
 * life, give or take a tenth, for the key that it has: a crash between two files must not leave a node that cannot start.
 */
export class NodeCertificate {
  readonly #options: NodeCertificateOptions;
  readonly #deps: NodeCertificateDeps;
  readonly #now: () => number;
  readonly #privateKey: KeyObject;
  readonly #keyPem: string;
  #chainPem: string;
  #identity: { readonly chain: readonly ParsedCertificate[]; readonly privateKey: KeyObject };
  #error: string | undefined;

  /** @throws {IdentityError} where a file is not what it should be; {Error} where it cannot be read */
  constructor(options: NodeCertificateOptions, deps: NodeCertificateDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#now = deps.now ?? Date.now;
    this.#keyPem = readFileSync(options.keyFile, 'utf8');
    this.#privateKey = createPrivateKey(this.#keyPem);
    this.#chainPem = readFileSync(options.certFile, 'utf8');
    this.#identity = { chain: parseCertificates(this.#chainPem), privateKey: this.#privateKey };
  }

  /** For TLS as a client of the controller and the API. */
  get credentials(): ClientCredentials {
    return { chain: this.#chainPem, privateKey: this.#keyPem };
  }

  /** For handshakes; the same object until the next renewal. */
  get identity(): { readonly chain: readonly ParsedCertificate[]; readonly privateKey: KeyObject } {
    return this.#identity;
  }

  /** When it ends. Unix milliseconds. */
  get notAfter(): number {
    return Math.min(...this.#identity.chain.map(({ notAfter }) => notAfter));
  }

  /** Why the last renewal failed; undefined while all is well. */
  get error(): string | undefined {
    return this.#error;
  }

  /** Renews it for as long as the signal lets it. */
  async keep(signal: AbortSignal): Promise<void> {
    const { random = Math.random, logger } = this.#deps;
    const sleep = this.#deps.sleep ?? ((ms, aborted) => wait(ms, undefined, { signal: aborted, ref: false }));
    let failures = 0;
    let pause = renewalDelayMs(this.notAfter, this.#now(), random());
    for (;;) {
      await sleep(Math.min(pause, longestSleepMs), signal).catch(() => undefined);
      if (signal.aborted) return;
      try {
        await this.#renew(signal);
        failures = 0;
        this.#error = undefined;
        pause = renewalDelayMs(this.notAfter, this.#now(), random());
        logger.info({ until: new Date(this.notAfter).toISOString() }, 'the node’s certificate is renewed');
      } catch (cause) {
        if (signal.aborted) return;
        this.#error = messageOf(cause);
        if (++failures === 1) logger.warn({ error: this.#error }, 'the node’s certificate cannot be renewed');
        pause = retryDelayMs(failures, 1000, 300_000, random());
      }
    }
  }

  async #renew(signal: AbortSignal): Promise<void> {
    const { issue, bundles, onRenewed } = this.#deps;
    const { node, certFile } = this.#options;
    const publicKey = createPublicKey(this.#privateKey);
    const issued = await issue(await buildCsr({ privateKey: this.#privateKey, publicKey }), signal);
    bundles.offer(parseBundle(issued.bundle));
    const chain = parseCertificates(issued.chain);
    const verified = verifyPeer(chain, bundles.current, { kind: 'node', name: node }, this.#now());
    if (!verified.ok)
      throw new IdentityError('BadCertificate', `the CA’s certificate for ${node}: ${verified.reason.detail}`);
    if (chain[0]?.publicKey.equals(publicKey) !== true)
      throw new IdentityError('BadCertificate', `the CA’s certificate for ${node} is for another key`);
    this.#chainPem = issued.chain;
    this.#identity = { chain, privateKey: this.#privateKey };
    onRenewed();
    // In use already: a file that cannot be written (a mounted Secret) is what the next start reads, and renews again.
    try {
      writeFileSync(`${certFile}.new`, issued.chain, { mode: 0o644 });
      renameSync(`${certFile}.new`, certFile);
    } catch (cause) {
      this.#deps.logger.warn({ error: messageOf(cause), certFile }, 'the renewed certificate cannot be written');
    }
  }
}
