import type { EndpointSlice, Service } from '../../api/kinds.ts';
import { type IpAddress, tryParseIp } from '../../model/address.ts';

/** A port of whoever has the address, on which something other than HTTP/1 is said to be spoken. */
export interface PortHint {
  readonly address: IpAddress;
  readonly port: number;
}

/** `appProtocol` of such ports: Kubernetes' own name for HTTP/2 in clear, and what people write. */
const protocols: ReadonlySet<string> = new Set(['kubernetes.io/h2c', 'h2c', 'http2', 'grpc']);
const names = /^(grpc|http2|h2c)(-|$)/;

/**
 * The ports that Services say speak HTTP/2 or gRPC: by the port's `appProtocol`, else by a name that begins so (as in Istio).
 * TCP only.
 */
export function portHints(services: Iterable<Service>, slices: Iterable<EndpointSlice>): PortHint[] {
  const said = new Map<string, boolean>();
  for (const { metadata, spec } of services)
    for (const { name = '', appProtocol } of spec?.ports ?? [])
      said.set(`${metadata.namespace ?? ''}/${metadata.name ?? ''}:${name}`, isHint(appProtocol, name));
  const hints = new Map<string, PortHint>();
  for (const { metadata, ports = [], endpoints } of slices) {
    const service = metadata.labels?.['kubernetes.io/service-name'] ?? '';
    for (const { name, port, protocol = 'TCP', appProtocol } of ports ?? []) {
      if (port === undefined || protocol !== 'TCP') continue;
      const own = name ?? '';
      const ofService = said.get(`${metadata.namespace ?? ''}/${service}:${own}`);
      if (!(appProtocol === undefined ? (ofService ?? isHint(undefined, own)) : isHint(appProtocol, own))) continue;
      for (const { addresses } of endpoints ?? []) {
        const address = tryParseIp(addresses[0] ?? '');
        if (address !== undefined) hints.set(`${address} ${port}`, { address, port });
      }
    }
  }
  return [...hints.values()];
}

function isHint(appProtocol: string | undefined, name: string): boolean {
  return appProtocol === undefined || appProtocol === '' ? names.test(name) : protocols.has(appProtocol.toLowerCase());
}
