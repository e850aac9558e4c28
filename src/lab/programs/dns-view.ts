import type { ObjectStore } from '../../api/client/types.ts';
import type { EndpointSlice, Live, Namespace, Pod, Service } from '../../api/kinds.ts';
import { tryParseIp } from '../../model/address.ts';
import { type DnsEndpoint, type DnsService, type DnsView, endpointLabel } from './dns-answers.ts';

const serviceNameLabel = 'kubernetes.io/service-name';

export interface DnsStores {
  readonly namespaces: ObjectStore<Namespace>;
  readonly services: ObjectStore<Service>;
  /** Indexed as {@link sliceIndex} by {@link serviceOfSlice}. */
  readonly slices: ObjectStore<EndpointSlice>;
  /** Indexed as {@link addressIndex} by {@link addressesOfPod}. */
  readonly pods: ObjectStore<Pod>;
}

export const sliceIndex = 'service';
export const addressIndex = 'address';

export function serviceOfSlice({ metadata }: Pick<EndpointSlice, 'metadata'>): string[] {
  const service = metadata.labels?.[serviceNameLabel];
  return service === undefined ? [] : [`${metadata.namespace}/${service}`];
}

export function addressesOfPod(pod: Pod | undefined): string[] {
  return (pod?.status?.podIPs ?? []).flatMap(({ ip = '' }) => tryParseIp(ip) ?? []);
}

/** The cluster's objects as names need them. */
export class StoreView implements DnsView {
  readonly #stores: DnsStores;
  /** Address → key of the service that has it, or has an endpoint with it; made again when something has changed. */
  #reverse: Map<string, { key: string; hostname?: string }> | undefined;

  constructor(stores: DnsStores) {
    this.#stores = stores;
    const forget = () => {
      this.#reverse = undefined;
    };
    stores.services.onChange(forget);
    stores.slices.onChange(forget);
  }

  hasNamespace(name: string): boolean {
    return this.#stores.namespaces.get(name) !== undefined;
  }

  hasPod(namespace: string, address: string): boolean {
    return this.#stores.pods.byIndex(addressIndex, address).some(({ raw }) => raw.metadata.namespace === namespace);
  }

  service(key: string): DnsService | undefined {
    const service = this.#stores.services.get(key)?.object;
    return service === undefined ? undefined : this.#toDns(service);
  }

  byAddress(address: string): { service: DnsService; hostname?: string } | undefined {
    this.#reverse ??= this.#makeReverse();
    const found = this.#reverse.get(address);
    const service = found === undefined ? undefined : this.service(found.key);
    if (found === undefined || service === undefined) return undefined;
    return { service, ...(found.hostname === undefined ? {} : { hostname: found.hostname }) };
  }

  #makeReverse(): Map<string, { key: string; hostname?: string }> {
    const reverse = new Map<string, { key: string; hostname?: string }>();
    for (const service of this.#stores.services.objects()) {
      const key = `${service.metadata.namespace}/${service.metadata.name}`;
      const { headless, addresses, endpoints } = this.#toDns(service);
      for (const address of addresses) reverse.set(address, { key });
      if (!headless) continue;
      for (const endpoint of endpoints)
        if (!reverse.has(endpoint.address)) reverse.set(endpoint.address, { key, hostname: endpointLabel(endpoint) });
    }
    return reverse;
  }

  #toDns({ metadata, spec = {} }: Live<Service>): DnsService {
    const { clusterIP, clusterIPs, type, externalName, ports = [], publishNotReadyAddresses = false } = spec;
    const headless = clusterIP === 'None';
    const key = `${metadata.namespace}/${metadata.name}`;
    return {
      namespace: metadata.namespace,
      name: metadata.name,
      headless,
      addresses: headless ? [] : (clusterIPs ?? [clusterIP ?? '']).filter((address) => address !== ''),
      ...(type === 'ExternalName' && externalName !== undefined ? { externalName } : {}),
      ports: ports.map(({ name = '', protocol = 'TCP', port }) => ({ name, protocol, port })),
      endpoints: headless ? this.#endpoints(key, publishNotReadyAddresses) : [],
    };
  }

  #endpoints(key: string, notReadyToo: boolean): DnsEndpoint[] {
    return this.#stores.slices.byIndex(sliceIndex, key).flatMap(({ object }) => {
      const ports = (object?.ports ?? []).flatMap(({ name = '', protocol = 'TCP', port }) =>
        port === undefined ? [] : [{ name, protocol, port }],
      );
      return (object?.endpoints ?? [])
        .filter(({ conditions }) => notReadyToo || conditions?.ready !== false)
        .flatMap(({ addresses, hostname }) =>
          addresses.map((address) => ({ address, ports, ...(hostname === undefined ? {} : { hostname }) })),
        );
    });
  }
}
