import type { Logger } from 'pino';
import { Reflector } from '../api/client/reflector.ts';
import { isServed } from '../api/client/served.ts';
import type { Api } from '../api/client/types.ts';
import { type ReadClusterSettings, readClusterSettings } from '../api/cluster-settings.ts';
import { clusterSettingsName } from '../api/kinds/myelin.ts';
import { type ClusterSettings, ownKinds } from '../api/kinds.ts';

/** What the cluster's settings come to on this node: the ClusterSettings object, and where it is silent the agent's options. */
export interface Settings {
  readonly defaultVerdict: 'allow' | 'deny';
  readonly breachRadius: 'pod' | 'node';
  readonly svidLifetimeSeconds: number;
  readonly rekeySeconds: number;
  readonly rekeyBytes: number | undefined;
  readonly istioRootNamespace: string;
}

/** Keeps the settings as the API has them. While the API is away they stay as they are. */
export class SettingsFeed {
  readonly #fallback: Settings;
  readonly #deps: { readonly api: Api; readonly logger: Logger; readonly onChange: () => void };
  readonly #objects: Reflector<ClusterSettings>;
  #read: ReadClusterSettings = { problems: [] };

  /** @param fallback The agent's options. */
  constructor(fallback: Settings, deps: { api: Api; logger: Logger; onChange: () => void }) {
    this.#fallback = fallback;
    this.#deps = deps;
    this.#objects = new Reflector<ClusterSettings>({ resource: ownKinds.ClusterSettings }, deps);
    this.#objects.onChange(() => this.#changed());
  }

  get current(): Settings {
    const { problems: _, ...said } = this.#read;
    return { ...this.#fallback, ...said };
  }

  /** What of the object is not understood; the strictest is in force for it. */
  get problems(): readonly string[] {
    return this.#read.problems;
  }

  /** Resolves when the settings are known: that there are none in an API that does not know the kind is known too. */
  async start(): Promise<void> {
    this.#objects.start();
    const served = await isServed(this.#deps.api, ownKinds.ClusterSettings).catch(() => true);
    if (served) await this.#objects.synced;
  }

  async close(): Promise<void> {
    await this.#objects.close();
  }

  #changed(): void {
    this.#read = readClusterSettings(this.#objects.get(clusterSettingsName));
    const { problems } = this.#read;
    if (problems.length > 0)
      this.#deps.logger.error({ problems }, 'the cluster’s settings are not understood: the strictest hold');
    this.#deps.onChange();
  }
}
