import { createPrivateKey, createPublicKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Logger } from 'pino';
import type { ApiClient } from '../api/client/client.ts';
import type { ApiEndpoint } from '../api/client/types.ts';
import { BundleStore, bundleFromPem } from '../identity/bundle.ts';
import { watchBundle } from '../identity/bundle-watch.ts';
import { ControllerIssuer } from '../identity/controller-issuer.ts';
import { NodeCertificate } from '../identity/node-certificate.ts';
import { SvidStore } from '../identity/svid-store.ts';
import type { ControllerHealth } from './conditions.ts';
import type { AgentOptions } from './options.ts';

export interface IdentityDeps {
  readonly api: ApiClient;
  /** What `api` was made of. */
  readonly kubeconfig: ApiEndpoint;
  readonly svidLifetimeMs: number;
  readonly onNodeRenewed: () => void;
  readonly logger: Logger;
}

/** Who the node and its pods are, and who is believed: certificates, trust bundle, and the controller that they come from. */
export class Identity {
  readonly bundles: BundleStore;
  readonly nodeCertificate: NodeCertificate;
  readonly svids: SvidStore;
  readonly controller: ControllerHealth;
  readonly #issuer: ControllerIssuer;
  readonly #stop = new AbortController();

  /** @throws {IdentityError} where a file is not what it should be; {Error} where it cannot be read */
  constructor(options: AgentOptions, deps: IdentityDeps) {
    const { api, kubeconfig, svidLifetimeMs, onNodeRenewed, logger } = deps;
    this.bundles = new BundleStore(bundleFromPem(options.trustDomain, readFileSync(options.ca, 'utf8')));
    const { bundles } = this;
    // Where the kubeconfig is this node's, the API is shown the newest certificate too, also after a restart.
    const showNewest = () => {
      const { chain, privateKey: key } = this.nodeCertificate.credentials;
      if (kubeconfig.key !== undefined && sameKey(kubeconfig.key, key))
        api.useEndpoint({ ...kubeconfig, cert: chain, key });
    };
    this.nodeCertificate = new NodeCertificate(
      { node: options.node, certFile: options.nodeCert, keyFile: options.nodeKey },
      {
        issue: (csr, signal) => this.#issuer.issueNode(csr, signal),
        bundles,
        logger,
        onRenewed: () => {
          showNewest();
          onNodeRenewed();
        },
      },
    );
    showNewest();
    this.#issuer = new ControllerIssuer(
      { url: options.controller },
      {
        credentials: () => this.nodeCertificate.credentials,
        roots: () => bundles.current.roots.map(({ native }) => native.toString()).join(''),
      },
    );
    const health: ControllerHealth = { error: undefined, clockSkewMs: () => this.#issuer.clockSkewMs };
    this.controller = health;
    const onState = (error?: string) => {
      health.error = error;
    };
    void watchBundle(this.#issuer, bundles, { logger, onState }, this.#stop.signal);
    this.svids = new SvidStore({ lifetimeMs: svidLifetimeMs }, { issuer: this.#issuer, bundles, logger });
  }

  /** Begins to renew the node's certificate. */
  keep(): void {
    void this.nodeCertificate.keep(this.#stop.signal);
  }

  close(): void {
    this.svids.close();
    this.#stop.abort();
    this.#issuer.close();
  }
}

/** Whether two private keys (PEM) are the same. */
function sameKey(one: string, other: string): boolean {
  return createPublicKey(createPrivateKey(one)).equals(createPublicKey(createPrivateKey(other)));
}
