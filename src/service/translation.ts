import type { EndpointSlice, Service } from '../api/kinds.ts';
import { familyOf, type IpAddress, tryParseIp } from '../model/address.ts';
import type { Protocol } from '../model/port.ts';

/** One transport address, as a Service has or a pod offers. */
export interface TransportAddress {
  readonly address: IpAddress;
  readonly port: number;
}

/** What the datapath translates: connections to `front` are spread evenly over `backends`. */
export interface ServiceFront {
  /** `namespace/name:port`, as telemetry shows it. */
  readonly name: string;
  readonly protocol: Protocol;
  readonly front: TransportAddress;
  /** In a stable order; empty means that connections are refused (NO_SERVICE_BACKEND). */
  readonly backends: readonly TransportAddress[];
}

/**
 * The fronts of all ClusterIP Services (also of NodePort and LoadBalancer ones, which have a ClusterIP too).
 * Headless and ExternalName Services have none: they are names only.
 */
export function serviceFronts(services: Iterable<Service>, slices: Iterable<EndpointSlice>): ServiceFront[] {
  const slicesOf = new Map<string, EndpointSlice[]>();
  for (const slice of slices) {
    const service = slice.metadata.labels?.['kubernetes.io/service-name'];
    if (service === undefined) continue;
    const key = `${slice.metadata.namespace ?? ''}/${service}`;
    slicesOf.set(key, [...(slicesOf.get(key) ?? []), slice]);
  }
  const fronts: ServiceFront[] = [];
  for (const service of services) {
    const { spec, metadata } = service;
    if (spec === undefined || spec.type === 'ExternalName') continue;
    const key = `${metadata.namespace ?? ''}/${metadata.name ?? ''}`;
    const texts = spec.clusterIPs ?? (spec.clusterIP === undefined ? [] : [spec.clusterIP]);
    for (const address of texts.map(tryParseIp)) {
      if (address === undefined) continue;
      for (const port of spec.ports ?? []) {
        const protocol = port.protocol ?? 'TCP';
        fronts.push({
          name: `${key}:${port.port}`,
          protocol,
          front: { address, port: port.port },
          backends: backendsOf(
            slicesOf.get(key) ?? [],
            port.name ?? '',
            protocol,
            address,
            spec.publishNotReadyAddresses === true,
          ),
        });
      }
    }
  }
  return fronts;
}

function backendsOf(
  slices: readonly EndpointSlice[],
  portName: string,
  protocol: Protocol,
  front: IpAddress,
  notReadyToo: boolean,
): TransportAddress[] {
  const wantedType = familyOf(front) === 4 ? 'IPv4' : 'IPv6';
  const found = new Map<string, TransportAddress>();
  for (const slice of slices) {
    if (slice.addressType !== wantedType) continue;
    const port = slice.ports?.find((p) => (p.name ?? '') === portName && (p.protocol ?? 'TCP') === protocol)?.port;
    if (port === undefined) continue;
    for (const endpoint of slice.endpoints ?? []) {
      // An absent `ready` is to be read as true (discovery.k8s.io/v1 EndpointConditions).
      if (endpoint.conditions?.ready === false && !notReadyToo) continue;
      // Consumers must use the first address only: the others are the same endpoint's.
      const address = tryParseIp(endpoint.addresses[0] ?? '');
      if (address !== undefined) found.set(`${address} ${port}`, { address, port });
    }
  }
  return [...found].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, backend]) => backend);
}
