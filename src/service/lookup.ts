import type { EndpointSlice, Service } from '../api/kinds.ts';
import { type IpAddress, tryParseIp } from '../model/address.ts';
import type { ServiceLookup, ServiceView } from '../policy/cilium/services.ts';

const apiService = 'default/kubernetes';

/** What policies may ask of the cluster's services. A Service need not have a selector: its slices say who its backends are. */
export function serviceLookup(services: Iterable<Service>, slices: Iterable<EndpointSlice>): ServiceLookup {
  const backends = new Map<string, IpAddress[]>();
  for (const { metadata, endpoints } of slices) {
    const service = metadata.labels?.['kubernetes.io/service-name'];
    if (service === undefined) continue;
    const key = `${metadata.namespace ?? ''}/${service}`;
    const found = (endpoints ?? []).flatMap(({ addresses }) => addresses.flatMap((text) => tryParseIp(text) ?? []));
    backends.set(key, [...(backends.get(key) ?? []), ...found]);
  }
  const views = new Map<string, ServiceView>();
  for (const { metadata } of services) {
    const { namespace = '', name = '', labels = {} } = metadata;
    const key = `${namespace}/${name}`;
    views.set(key, { namespace, name, labels, backends: backends.get(key) ?? [] });
  }
  return { services: views, apiServers: backends.get(apiService) ?? [] };
}
