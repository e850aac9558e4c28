import type { KeyObject } from 'node:crypto';
import type { IpAddress } from '../model/address.ts';
import { parseSpiffeId, type SpiffeId } from '../model/identity.ts';
import { type BundleDocument, parseBundle, type TrustBundle } from './bundle.ts';
import { CaDirectory } from './ca-directory.ts';
import type { ParsedCertificate } from './certificate.ts';
import { verifyCsr } from './csr.ts';
import { IdentityError } from './error.ts';
import {
  adminOrganization,
  checkNodeName,
  checkPodAddresses,
  checkTrustDomain,
  checkUid,
  nodeOrganization,
  nodeSpiffeId,
} from './names.ts';
import type { RevocationsDocument } from './revocation.ts';
import {
  activateRoot,
  addRevocations,
  allRevoked,
  type CaState,
  declareRevocations,
  noteIssued,
  prepareRoot,
  retireRoot,
  signingRoot,
} from './rotation.ts';
import { type Leaf, newRoot, signLeaf } from './sign.ts';
import { newKeyPair, oid, x509 } from './x509.ts';

export interface CaOptions {
  readonly trustDomain: string;
  /** Keeps state and keys there; without it they are in memory only and end with the process. */
  readonly directory?: string;
  /** How long a prepared root must have been published before it may sign. Default 10 minutes. */
  readonly overlapMs?: number;
  /** Default Date.now. */
  readonly now?: () => number;
}

/** Whom a pod's certificate names. The CA does not check that it is so: see src/controller/admission.ts. */
export interface SvidSubject {
  readonly spiffeId: SpiffeId;
  readonly podUid: string;
  readonly addresses: readonly IpAddress[];
  /** Default one hour, at most {@link longestSvidMs}. */
  readonly lifetimeMs?: number;
}

export interface ServerSubject {
  readonly commonName: string;
  readonly dnsNames?: readonly string[];
  readonly addresses?: readonly IpAddress[];
}

/** A certificate with the key that was made for it, for files that are handed to a process. */
export interface Credentials {
  readonly certificate: ParsedCertificate;
  /** PEM, leaf first. */
  readonly chain: string;
  /** PKCS#8 PEM. */
  readonly privateKey: string;
}

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;
const defaultSvidMs = hour;
const longestSvidMs = day;
const nodeMs = 30 * day;
const serverMs = 90 * day;
const adminMs = 365 * day;

const both = [x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth] as const;

/**
 * The embedded certificate authority: signs what it is told to and rotates its root. Everything it signs is a leaf;
 * deciding who may have what is its caller's.
 */
export class CertificateAuthority {
  readonly trustDomain: string;
  readonly #directory: CaDirectory | undefined;
  readonly #overlapMs: number;
  readonly #now: () => number;
  readonly #keys: Map<string, KeyObject>;
  #state: CaState;
  #bundle: TrustBundle;
  /** Serialises everything that changes the state. */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(options: CaOptions, state: CaState, keys: Map<string, KeyObject>) {
    this.trustDomain = options.trustDomain;
    this.#directory = options.directory === undefined ? undefined : new CaDirectory(options.directory);
    this.#overlapMs = options.overlapMs ?? 10 * minute;
    this.#now = options.now ?? Date.now;
    this.#state = state;
    this.#keys = keys;
    this.#bundle = bundleOf(state);
  }

  /**
   * Loads the CA of the directory, or makes one there when the directory has none (in memory when none is given).
   * @throws {IdentityError} `CaDirectory`, `BadName`
   */
  static async open(options: CaOptions): Promise<CertificateAuthority> {
    checkTrustDomain(options.trustDomain);
    const directory = options.directory === undefined ? undefined : new CaDirectory(options.directory);
    const found = await directory?.load();
    if (found !== undefined) {
      if (found.state.trustDomain !== options.trustDomain)
        throw new IdentityError(
          'CaDirectory',
          `${directory?.path} is the CA of ${found.state.trustDomain}, not of ${options.trustDomain}`,
        );
      if (!found.keys.has(signingRoot(found.state).id))
        throw new IdentityError('CaDirectory', `${directory?.path} lacks the key of its signing root`);
      return new CertificateAuthority(options, found.state, found.keys);
    }
    const now = (options.now ?? Date.now)();
    const root = await newRoot(options.trustDomain, now);
    const state: CaState = {
      trustDomain: options.trustDomain,
      sequence: 1,
      revocations: { serials: [], podUids: [], spiffeIds: [] },
      declared: { serials: [], podUids: [], spiffeIds: [] },
      roots: [{ id: root.id, certificate: root.certificate, status: 'signing', publishedAt: now, issuedUntil: 0 }],
    };
    const keys = new Map([[root.id, root.privateKey]]);
    await directory?.save(state, keys);
    return new CertificateAuthority(options, state, keys);
  }

  /** What everybody should trust now. */
  get bundle(): TrustBundle {
    return this.#bundle;
  }

  /** Where a rotation stands. */
  get roots(): readonly {
    id: string;
    status: 'next' | 'signing' | 'previous';
    publishedAt: number;
    issuedUntil: number;
    readyAt?: number;
  }[] {
    return this.#state.roots.map(({ id, status, publishedAt, issuedUntil }) => ({
      id,
      status,
      publishedAt,
      issuedUntil,
      ...(status === 'next' ? { readyAt: publishedAt + this.#overlapMs } : {}),
    }));
  }

  /**
   * Signs a pod's X.509-SVID.
   * @param csr PEM; proves possession, names nobody.
   * @throws {IdentityError} `BadCsr`, `BadName` (foreign trust domain, no or too many addresses, lifetime too long)
   */
  async signSvid(csr: string, subject: SvidSubject): Promise<ParsedCertificate> {
    const { spiffeId, podUid, addresses, lifetimeMs = defaultSvidMs } = subject;
    const { trustDomain } = parseSpiffeId(spiffeId);
    if (trustDomain !== this.trustDomain)
      throw new IdentityError('BadName', `${spiffeId} is not of this CA’s trust domain ${this.trustDomain}`);
    if (!(lifetimeMs > 0 && lifetimeMs <= longestSvidMs))
      throw new IdentityError('BadName', `a pod’s certificate lives at most ${longestSvidMs / hour} hours`);
    checkPodAddresses(addresses);
    return await this.#sign(await verifyCsr(csr), {
      subject: [{ [oid.subjectSerialNumber]: [{ printableString: checkUid(podUid) }] }],
      names: [
        { type: 'url', value: spiffeId },
        ...addresses.map((address) => ({ type: 'ip' as const, value: address })),
      ],
      usages: both,
      lifetimeMs,
    });
  }

  /** Signs a node's certificate: an SVID of the node, and its client certificate at the API. */
  async signNode(csr: string, name: string): Promise<ParsedCertificate> {
    return await this.#sign(await verifyCsr(csr), this.#nodeLeaf(name));
  }

  /** Makes a node's key and certificate in one step, for a machine that is being set up. */
  async issueNode(name: string): Promise<Credentials> {
    return await this.#issue(this.#nodeLeaf(name));
  }

  /** A server's certificate (API, controller): DNS and IP names, no SPIFFE ID, so it never authenticates as a pod or node. */
  async issueServer({ commonName, dnsNames = [], addresses = [] }: ServerSubject): Promise<Credentials> {
    return await this.#issue({
      subject: [{ CN: [commonName] }],
      names: [
        ...dnsNames.map((value) => ({ type: 'dns' as const, value })),
        ...addresses.map((value) => ({ type: 'ip' as const, value })),
      ],
      usages: [x509.ExtendedKeyUsage.serverAuth],
      lifetimeMs: serverMs,
    });
  }

  /** A client certificate for the API: common name and groups as Kubernetes reads them. Default group: administrators. */
  async issueClient(commonName: string, groups: readonly string[] = [adminOrganization]): Promise<Credentials> {
    return await this.#issue({
      subject: [...groups.map((group) => ({ O: [group] })), { CN: [commonName] }],
      names: [],
      usages: [x509.ExtendedKeyUsage.clientAuth],
      lifetimeMs: adminMs,
    });
  }

  /** First step of rotation: publishes a new root that signs nothing yet. @throws {IdentityError} `CaState` */
  async prepare(): Promise<void> {
    await this.#change(async (state) => {
      const now = this.#now();
      const root = await newRoot(this.trustDomain, now);
      const next = prepareRoot(state, root, now);
      this.#keys.set(root.id, root.privateKey);
      return next;
    });
  }

  /** Second step: the prepared root signs from here on, the old root's key is destroyed. @throws {IdentityError} `CaState` */
  async activate(): Promise<void> {
    await this.#change(async (state) => {
      const next = activateRoot(state, this.#now(), this.#overlapMs);
      for (const root of next.roots) if (root.status === 'previous') this.#keys.delete(root.id);
      return next;
    });
  }

  /** Last step: the old root is trusted no longer. @throws {IdentityError} `CaState` */
  async retire(): Promise<void> {
    await this.#change(async (state) => retireRoot(state, this.#now()));
  }

  /** From here on the bundle says that these are no longer believed, whatever their certificates say. There is no way back. */
  async revoke(revoked: Partial<RevocationsDocument>): Promise<void> {
    await this.#change(async (state) => addRevocations(state, revoked));
  }

  /** The same as long as it is said: what was declared before, and is not now, is believed again. @returns Whether that is news. */
  async declare(revoked: RevocationsDocument): Promise<boolean> {
    let news = false;
    await this.#change(async (state) => {
      const next = declareRevocations(state, revoked);
      news = next !== state;
      return next;
    });
    return news;
  }

  #nodeLeaf(name: string): Leaf {
    return {
      subject: [{ O: [nodeOrganization] }, { CN: [`system:node:${checkNodeName(name)}`] }],
      names: [{ type: 'url', value: nodeSpiffeId(this.trustDomain, name) }],
      usages: both,
      lifetimeMs: nodeMs,
    };
  }

  async #issue(leaf: Leaf): Promise<Credentials> {
    const keys = await newKeyPair();
    const certificate = await this.#sign(keys.publicKey, leaf);
    const privateKey = keys.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
    return { certificate, chain: certificate.native.toString(), privateKey };
  }

  async #sign(publicKey: KeyObject, leaf: Leaf): Promise<ParsedCertificate> {
    const now = this.#now();
    const notAfter = now + leaf.lifetimeMs;
    // Before the signature exists: a root must not be retired while something that it signed is in use.
    while (noteIssued(this.#state, notAfter) !== this.#state)
      await this.#change(async (state) => noteIssued(state, notAfter));
    const root = signingRoot(this.#state);
    const key = this.#keys.get(root.id);
    if (key === undefined) throw new IdentityError('CaState', `the key of root ${root.id} is not there`);
    return await signLeaf({ certificate: root.certificate, privateKey: key }, publicKey, leaf, now);
  }

  async #change(step: (state: CaState) => Promise<CaState>): Promise<void> {
    const turn = this.#turn.then(async () => {
      const next = await step(this.#state);
      if (next === this.#state) return;
      await this.#directory?.save(next, this.#keys);
      this.#state = next;
      this.#bundle = bundleOf(next);
    });
    this.#turn = turn.catch(() => undefined);
    await turn;
  }
}

function bundleOf(state: CaState): TrustBundle {
  const { trustDomain, sequence } = state;
  const revocations = allRevoked(state);
  const roots = state.roots.map((root) => `${root.certificate.trim()}\n`).join('');
  return parseBundle({ trustDomain, sequence, roots, revocations } satisfies BundleDocument);
}
