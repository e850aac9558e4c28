import type { Logger } from 'pino';
import { ApiClient } from '../api/client/client.ts';
import { readKubeconfig } from '../api/client/kubeconfig.ts';
import { ApiFeed } from './api-feed.ts';
import { ClusterState } from './cluster-state.ts';
import type { AgentOptions } from './options.ts';
import { SettingsFeed } from './settings-feed.ts';

/** What the agent knows of its cluster, kept up to date from the API. */
export class Cluster {
  readonly kubeconfig: ReturnType<typeof readKubeconfig>;
  readonly api: ApiClient;
  readonly state: ClusterState;
  readonly feed: ApiFeed;
  readonly settings: SettingsFeed;
  /** Pods, nodes, namespaces or policies are others now, or what holds where there are none. */
  onView: () => void = () => {};
  onSettings: () => void = () => {};

  /** @param onServices Called when Services or their endpoints change. @throws {MyelinError} for a kubeconfig that is none */
  constructor(options: AgentOptions, { logger, onServices }: { logger: Logger; onServices: () => void }) {
    const { trustDomain, podCidrs, serviceCidrs, istioRootNamespace } = options;
    this.state = new ClusterState(
      { defaultDeny: options.clusterDefault === 'deny', podCidrs, serviceCidrs, trustDomain },
      () => this.onView(),
    );
    this.kubeconfig = readKubeconfig(options.kubeconfig);
    this.api = new ApiClient(this.kubeconfig);
    const { api } = this;
    const policies = { trustDomain, rootNamespace: istioRootNamespace };
    this.feed = new ApiFeed(this.state, { api, logger, onServices, policies });
    this.settings = new SettingsFeed(
      {
        defaultVerdict: options.clusterDefault,
        breachRadius: options.breachRadius,
        svidLifetimeSeconds: options.svidTtlSeconds,
        rekeySeconds: options.rekeySeconds,
        rekeyBytes: options.rekeyBytes,
        istioRootNamespace,
      },
      { api, logger, onChange: () => this.#settingsChanged(trustDomain) },
    );
  }

  /** Resolves when the first list of every kind is in. */
  async start(): Promise<void> {
    await Promise.all([this.feed.start(), this.settings.start()]);
  }

  async close(): Promise<void> {
    await this.settings.close();
    await this.feed.close();
  }

  #settingsChanged(trustDomain: string): void {
    const { defaultVerdict, istioRootNamespace: rootNamespace } = this.settings.current;
    this.state.setDefaultDeny(defaultVerdict === 'deny');
    this.feed.setPolicyContext({ trustDomain, rootNamespace });
    this.onSettings();
    this.onView();
  }
}
