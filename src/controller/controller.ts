import { hostname } from 'node:os';
import type { Logger } from 'pino';
import type { Api } from '../api/client/types.ts';
import { installDefinitions } from '../api/definitions.ts';
import { CertificateAuthority } from '../identity/ca.ts';
import type { Prefix } from '../model/prefix.ts';
import { Cluster } from './cluster.ts';
import { CaServer } from './http.ts';
import { Leader } from './leader.ts';
import { clusterCidr, NodeCidrController } from './node-cidrs.ts';
import { PolicyStatusController } from './policy-status.ts';
import { RevocationController } from './revocations.ts';
import { SettingsStatusController } from './settings-status.ts';
import { SvidService } from './svid-service.ts';

export interface ControllerOptions {
  readonly listen: { readonly host: string; readonly port: number };
  readonly trustDomain: string;
  /** Where the CA's root keys are (see identity/ca-directory.ts); made when it has none. */
  readonly caDirectory: string;
  /** What nodes get their pod CIDRs out of: one prefix of each family at most. */
  readonly podCidrs: readonly Prefix[];
  /** Among controllers that compete to lead; default this machine's name and the port. */
  readonly identity?: string;
  /** How long a new root is published before it may sign. Default 10 minutes. */
  readonly rootOverlapMs?: number;
}

export interface ControllerDeps {
  readonly api: Api;
  /** This server's certificate and key, PEM. */
  readonly credentials: { readonly cert: string; readonly key: string };
  readonly logger: Logger;
}

/** The controller process. Every one serves the CA; the one that leads gives nodes their pod CIDRs and policies their status. */
export class Controller {
  readonly ca: CertificateAuthority;
  readonly service: SvidService;
  readonly #cluster: Cluster;
  readonly #cidrs: NodeCidrController;
  readonly #server: CaServer;
  readonly #leader: Leader;
  readonly #revocations: RevocationController;
  #port = 0;

  private constructor(options: ControllerOptions, deps: ControllerDeps, ca: CertificateAuthority) {
    const { api, credentials, logger } = deps;
    this.ca = ca;
    this.#cluster = new Cluster({ api, logger });
    this.service = new SvidService({ ca, lookup: this.#cluster, logger });
    this.#cidrs = new NodeCidrController(options.podCidrs.map(clusterCidr), { store: this.#cluster, logger });
    const { trustDomain } = options;
    const statuses = new PolicyStatusController({ api, logger, trustDomain });
    const settings = new SettingsStatusController({ api, logger, trustDomain });
    this.#revocations = new RevocationController({ api, ca, logger, onChanged: () => this.#server.bundleChanged() });
    this.#leader = new Leader(
      { identity: options.identity ?? `${hostname()}:${options.listen.port}` },
      {
        api,
        logger,
        onStarted: () => {
          this.#cidrs.start();
          statuses.start();
          settings.start();
          this.#revocations.lead(true);
        },
        onStopped: async () => {
          this.#revocations.lead(false);
          await Promise.all([this.#cidrs.close(), settings.close(), statuses.close()]);
        },
      },
    );
    this.#server = new CaServer(options.listen, { ca, service: this.service, credentials, logger });
  }

  /**
   * Resolves when certificates can be asked for. The API may come later: until it has been read nothing is signed.
   * @throws {IdentityError} `CaDirectory`
   */
  static async start(options: ControllerOptions, deps: ControllerDeps): Promise<Controller> {
    const { trustDomain, caDirectory: directory, rootOverlapMs } = options;
    const overlap = rootOverlapMs === undefined ? {} : { overlapMs: rootOverlapMs };
    const ca = await CertificateAuthority.open({ trustDomain, directory, ...overlap });
    const controller = new Controller(options, deps, ca);
    await controller.#cluster.start();
    await installDefinitions(deps.api).catch((error: unknown) =>
      deps.logger.warn({ err: error }, 'Myelin’s own kinds cannot be installed: apply deploy/crds, or allow it'),
    );
    controller.#revocations.start();
    controller.#leader.start();
    controller.#port = await controller.#server.listen();
    return controller;
  }

  get port(): number {
    return this.#port;
  }

  async close(): Promise<void> {
    await this.#server.close();
    await this.#leader.close();
    await this.#revocations.close();
    await this.#cluster.close();
  }
}
