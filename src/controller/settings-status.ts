import type { Logger } from 'pino';
import { Reflector } from '../api/client/reflector.ts';
import type { Api, Entry } from '../api/client/types.ts';
import { readClusterSettings } from '../api/cluster-settings.ts';
import { type ClusterSettings, ownKinds } from '../api/kinds.ts';
import type { WantedCondition } from './revocation-list.ts';
import { writeStatus } from './status-writer.ts';

/** What the status of a ClusterSettings should say. Pure. */
export function settingsConditions(entry: Entry<ClusterSettings>): WantedCondition[] {
  const { problems } = readClusterSettings(entry);
  if (problems.length === 0)
    return [
      { type: 'Effective', status: 'True', reason: 'TakenUp', message: 'every agent that hears of it takes it up' },
      { type: 'Understood', status: 'True', reason: 'Understood', message: 'every field is understood' },
    ];
  const strict = 'pods that no policy selects are denied, and every pair has keys of its own, until it is understood';
  return [
    { type: 'Effective', status: 'False', reason: 'NotUnderstood', message: strict },
    { type: 'Understood', status: 'False', reason: 'NotUnderstood', message: problems.join('; ') },
  ];
}

/** Says in the status of the cluster's settings whether they are understood. One controller at a time may run it. */
export class SettingsStatusController {
  readonly #deps: { readonly api: Api; readonly logger: Logger; readonly trustDomain: string };
  #objects: Reflector<ClusterSettings> | undefined;

  /** @param deps The trust domain is said in the status, for those who only read the API. */
  constructor(deps: { readonly api: Api; readonly logger: Logger; readonly trustDomain: string }) {
    this.#deps = deps;
  }

  start(): void {
    this.#objects = new Reflector<ClusterSettings>({ resource: ownKinds.ClusterSettings }, this.#deps).start();
    this.#objects.onChange(({ kind, entry }) => {
      if (kind === 'delete') return;
      const target = { resource: ownKinds.ClusterSettings, raw: entry.raw };
      const { trustDomain, ...deps } = this.#deps;
      const outdated = readClusterSettings(entry).trustDomain !== trustDomain;
      void writeStatus(target, settingsConditions(entry), { ...deps, now: new Date() }, { trustDomain }, [], outdated);
    });
  }

  async close(): Promise<void> {
    await this.#objects?.close();
    this.#objects = undefined;
  }
}
