import { isDeepStrictEqual } from 'node:util';
import type { Logger } from 'pino';
import { isApiError } from '../../api/client/error.ts';
import type { Api, ObjectStore } from '../../api/client/types.ts';
import { type EndpointSlice, kinds, type Live, objectKey, type Pod, type Service } from '../../api/kinds.ts';
import { selects } from '../../model/labels.ts';
import { WorkQueue } from './queue.ts';
import { managedByLabel, manager, serviceNameLabel, slicesFor } from './slices.ts';

export interface EndpointSlicesDeps {
  readonly api: Api;
  readonly services: ObjectStore<Service>;
  /** With an index {@link namespaceIndex} by namespace. */
  readonly pods: ObjectStore<Pod>;
  readonly slices: ObjectStore<EndpointSlice>;
  readonly log: Logger;
}

export const namespaceIndex = 'namespace';

/** Keeps the EndpointSlices of every service that selects pods. */
export class EndpointSlices {
  readonly #deps: EndpointSlicesDeps;

  constructor(deps: EndpointSlicesDeps) {
    this.#deps = deps;
  }

  run(signal: AbortSignal): void {
    const { services, pods, slices, log } = this.#deps;
    const queue = new WorkQueue({ name: 'endpoint-slices', log, signal, workers: 4 }, (key) => this.#reconcile(key));
    services.onChange(({ entry }) => queue.add(entry.key));
    pods.onChange(({ entry, previous }) => {
      const { namespace = '' } = entry.raw.metadata;
      for (const service of services.objects()) {
        if (service.metadata.namespace !== namespace || service.spec?.selector === undefined) continue;
        const selector = { matchLabels: service.spec.selector };
        const matters = [entry, previous].some((each) => each && selects(selector, each.raw.metadata.labels ?? {}));
        if (matters) queue.add(objectKey(service));
      }
    });
    // Somebody else's hand in our slices is undone.
    slices.onChange(({ entry }) => {
      const { namespace, labels = {} } = entry.raw.metadata;
      if (labels[managedByLabel] === manager) queue.add(`${namespace}/${labels[serviceNameLabel]}`);
    });
  }

  async #reconcile(key: string): Promise<void> {
    const { api, services, slices } = this.#deps;
    const service = services.get(key)?.object;
    // The slices of a service that has gone go with it: they name it as their owner.
    if (service === undefined || service.metadata.deletionTimestamp !== undefined) return;
    const pods = this.#deps.pods
      .byIndex(namespaceIndex, service.metadata.namespace)
      .flatMap(({ object }) => (object === undefined ? [] : [object]));
    const wanted = slicesFor(service, pods);
    const present = slices
      .objects()
      .filter(({ metadata }) => metadata.namespace === service.metadata.namespace)
      .filter(({ metadata }) => metadata.labels?.[managedByLabel] === manager)
      .filter(({ metadata }) => metadata.labels?.[serviceNameLabel] === service.metadata.name);
    const names = new Set(wanted.map(({ metadata }) => metadata.name));
    await Promise.all([
      ...wanted.map((slice) => this.#write(slice, present)),
      ...present
        .filter(({ metadata }) => !names.has(metadata.name))
        .map(({ metadata }) => api.delete(kinds.EndpointSlice, metadata).catch(ignore('NotFound'))),
    ]);
  }

  async #write(slice: EndpointSlice, present: readonly Live<EndpointSlice>[]): Promise<void> {
    const { api } = this.#deps;
    const old = present.find(({ metadata }) => metadata.name === slice.metadata.name);
    if (old === undefined) {
      await api.create(kinds.EndpointSlice, slice, { fieldManager: manager }).catch(ignore('AlreadyExists'));
      return;
    }
    const same =
      isDeepStrictEqual(old.endpoints ?? [], slice.endpoints ?? []) &&
      isDeepStrictEqual(old.ports ?? [], slice.ports ?? []);
    if (same) return;
    const { resourceVersion } = old.metadata;
    const next = { ...slice, metadata: { ...slice.metadata, resourceVersion } };
    await api.replace(kinds.EndpointSlice, next, { fieldManager: manager }).catch(ignore('NotFound', 'Conflict'));
  }
}

function ignore(...codes: Parameters<typeof isApiError>[1][]) {
  return (error: unknown) => {
    if (!isApiError(error, ...codes)) throw error;
  };
}
