import type { Logger } from 'pino';
import { type BundleDocument, bundleDocument } from '../identity/bundle.ts';
import type { CertificateAuthority } from '../identity/ca.ts';
import { IdentityError } from '../identity/error.ts';
import { nodeSpiffeId } from '../identity/names.ts';
import type { IpAddress } from '../model/address.ts';
import { podName } from '../model/endpoint.ts';
import { type Result, success } from '../model/result.ts';
import { RateLimit } from '../tunnel/handshake/counters.ts';
import {
  admitSvid,
  type ClusterFacts,
  type Denial,
  type DenialCode,
  deny,
  type NodeFacts,
  nodeRequestSchema,
  type PodFacts,
  type SvidRequest,
  svidRequestSchema,
} from './admission.ts';

/** What the service looks up. Implemented over the API by cluster.ts. */
export interface PodLookup {
  /** As it is now. Rejects when that cannot be found out. */
  pod(namespace: string, name: string): Promise<PodFacts | undefined>;
  /** As last seen. */
  knownPod(namespace: string, name: string): PodFacts | undefined;
  podsAt(address: IpAddress): readonly PodFacts[];
  node(name: string): NodeFacts | undefined;
}

export interface SvidAnswer {
  /** PEM, leaf first, without the root. */
  readonly chain: string;
  readonly bundle: BundleDocument;
}

interface Issued {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly notAfter: number;
}

/** Signs pods' certificates for the nodes that host them, and for nobody else. */
export class SvidService {
  readonly #ca: CertificateAuthority;
  readonly #lookup: PodLookup;
  readonly #logger: Logger;
  readonly #now: () => number;
  /** For whom a certificate with the address is in the world: known before the API has a pod's addresses. */
  readonly #issued = new Map<IpAddress, Issued>();
  readonly #strangers: RateLimit;
  readonly #denied = new Map<DenialCode, number>();
  #count = 0;

  constructor(deps: {
    readonly ca: CertificateAuthority;
    readonly lookup: PodLookup;
    readonly logger: Logger;
    readonly now?: () => number;
  }) {
    this.#ca = deps.ca;
    this.#lookup = deps.lookup;
    this.#logger = deps.logger;
    this.#now = deps.now ?? Date.now;
    this.#strangers = new RateLimit(1000, this.#now);
  }

  /** Certificates signed, and requests denied by reason, since the start. */
  statistics(): { readonly issued: number; readonly denied: Readonly<Partial<Record<DenialCode, number>>> } {
    return { issued: this.#count, denied: Object.fromEntries(this.#denied) };
  }

  /**
   * @param caller The node's name, as its certificate proved it.
   * @param body The request, not looked at yet.
   * @throws {Error} When the API cannot be asked: then nothing is signed.
   */
  async sign(caller: string, body: unknown): Promise<Result<SvidAnswer, Denial>> {
    const parsed = svidRequestSchema.safeParse(body);
    if (!parsed.success) {
      const issue = parsed.error.issues[0];
      const where = issue?.path.map(String).join('.') ?? '';
      return this.#deny(caller, undefined, deny('bad-request', `${where}: ${issue?.message ?? 'unreadable'}`).reason);
    }
    const request = parsed.data;
    const facts: ClusterFacts = {
      pod: await this.#lookup.pod(request.pod.namespace, request.pod.name),
      node: this.#lookup.node(caller),
      holderOf: (address, uid) => this.#holderOf(address, uid),
    };
    const admitted = admitSvid(caller, request, facts, this.#ca.trustDomain);
    if (!admitted.ok) return this.#deny(caller, request, admitted.reason);
    const { podUids, spiffeIds } = this.#ca.bundle.revocations;
    const { podUid, spiffeId, addresses } = admitted.value;
    if (podUids.has(podUid) || spiffeIds.has(spiffeId) || spiffeIds.has(nodeSpiffeId(this.#ca.trustDomain, caller)))
      return this.#deny(caller, request, deny('revoked', `${podName(request.pod)} on ${caller} is revoked`).reason);
    // Taken before the signature, which takes a moment, so that two requests at once cannot both have it.
    const { namespace, name, uid } = request.pod;
    const before = addresses.map((address) => [address, this.#issued.get(address)] as const);
    const hold = (notAfter: number) => {
      for (const address of addresses) this.#issued.set(address, { namespace, name, uid, notAfter });
    };
    hold(Number.POSITIVE_INFINITY);
    try {
      const certificate = await this.#ca.signSvid(request.csr, admitted.value);
      hold(certificate.notAfter);
      this.#count++;
      const { serialNumber: serial } = certificate;
      this.#logger.info({ node: caller, pod: request.pod, spiffeId, addresses, serial }, 'certificate signed');
      return success({ chain: certificate.native.toString(), bundle: bundleDocument(this.#ca.bundle) });
    } catch (error) {
      for (const [address, issued] of before)
        if (issued === undefined) this.#issued.delete(address);
        else this.#issued.set(address, issued);
      if (error instanceof IdentityError && (error.code === 'BadCsr' || error.code === 'BadName')) {
        const code = error.code === 'BadCsr' ? 'bad-csr' : 'bad-request';
        return this.#deny(caller, request, deny(code, error.message).reason);
      }
      throw error;
    }
  }

  /**
   * A node's next certificate, for as long as the API knows the node.
   * @param caller The node's name, as its certificate proved it.
   * @param body The request, not looked at yet.
   */
  async signNode(caller: string, body: unknown): Promise<Result<SvidAnswer, Denial>> {
    const parsed = nodeRequestSchema.safeParse(body);
    if (!parsed.success) return this.#deny(caller, undefined, deny('bad-request', 'expected {csr}').reason);
    if (this.#lookup.node(caller) === undefined)
      return this.#deny(caller, undefined, deny('no-such-node', `the API knows no node ${caller}`).reason);
    try {
      const certificate = await this.#ca.signNode(parsed.data.csr, caller);
      this.#logger.info({ node: caller, serial: certificate.serialNumber }, 'certificate of a node signed');
      return success({ chain: certificate.native.toString(), bundle: bundleDocument(this.#ca.bundle) });
    } catch (error) {
      if (error instanceof IdentityError && error.code === 'BadCsr')
        return this.#deny(caller, undefined, deny('bad-csr', error.message).reason);
      throw error;
    }
  }

  /** Counts and logs a refusal that was decided before this service was asked. */
  refused(denial: Denial, from: string | undefined): void {
    this.#denied.set(denial.code, (this.#denied.get(denial.code) ?? 0) + 1);
    // Anybody can be refused as often as they like; the log is not theirs to fill.
    const skipped = this.#strangers.pass(denial.code);
    if (skipped === undefined) return;
    this.#logger.warn({ from, skipped, reason: denial.code, detail: denial.message }, 'certificate refused');
  }

  #deny(caller: string, request: SvidRequest | undefined, reason: Denial): { ok: false; reason: Denial } {
    this.#denied.set(reason.code, (this.#denied.get(reason.code) ?? 0) + 1);
    this.#logger.warn(
      { node: caller, pod: request?.pod, reason: reason.code, detail: reason.message },
      'certificate refused',
    );
    return { ok: false, reason };
  }

  #holderOf(address: IpAddress, uid: string): PodFacts | undefined {
    const holder = this.#lookup.podsAt(address).find((pod) => pod.uid !== uid && !pod.ended);
    if (holder !== undefined) return holder;
    const issued = this.#issued.get(address);
    if (issued === undefined || issued.uid === uid) return undefined;
    const known = this.#lookup.knownPod(issued.namespace, issued.name);
    const alive = known !== undefined && known.uid === issued.uid && !known.ended && this.#now() < issued.notAfter;
    // A pod that meanwhile told the API another address does not hold this one any more.
    const holds = alive && (known.addresses.length === 0 || known.addresses.includes(address));
    if (!holds) this.#issued.delete(address);
    return holds ? known : undefined;
  }
}
