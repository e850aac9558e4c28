import type { EndpointSlice, Live, Pod, Service, ServicePort } from '../../api/kinds.ts';
import { type Family, familyOf, tryParseIp } from '../../model/address.ts';
import { selects } from '../../model/labels.ts';
import { isOver, isReady } from '../pod-phase.ts';

export const serviceNameLabel = 'kubernetes.io/service-name';
export const managedByLabel = 'endpointslice.kubernetes.io/managed-by';
export const manager = 'myelin-lab';

type SlicePort = NonNullable<EndpointSlice['ports']>[number];
type SliceEndpoint = NonNullable<EndpointSlice['endpoints']>[number];

/**
 * The EndpointSlices that a service should have: for each of its families one for every set of port numbers that its pods
 * resolve its target ports to. Pods that are not ready are in them and said to be so; pods without an address are not.
 * @returns In order of their names; none for a service without a selector, whose slices are somebody else's.
 */
export function slicesFor(service: Live<Service>, pods: readonly Live<Pod>[]): EndpointSlice[] {
  const { spec = {}, metadata } = service;
  const { selector, ports = [], publishNotReadyAddresses = false } = spec;
  if (selector === undefined || Object.keys(selector).length === 0 || spec.type === 'ExternalName') return [];
  const own = pods
    .filter((pod) => pod.metadata.namespace === metadata.namespace && !isOver(pod))
    .filter((pod) => selects({ matchLabels: selector }, pod.metadata.labels ?? {}))
    .sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
  return (spec.ipFamilies ?? ['IPv4']).flatMap((family) => {
    const groups = new Map<string, { ports: SlicePort[]; endpoints: SliceEndpoint[] }>();
    for (const pod of own) {
      const address = addressOf(pod, family === 'IPv4' ? 4 : 6);
      if (address === undefined) continue;
      const resolved = ports.flatMap((port) => resolvePort(port, pod));
      const key = JSON.stringify(resolved);
      const group = groups.get(key) ?? { ports: resolved, endpoints: [] };
      groups.set(key, group);
      group.endpoints.push(endpointOf(pod, address, publishNotReadyAddresses));
    }
    return [...groups.values()].map((group, i) => ({
      apiVersion: 'discovery.k8s.io/v1' as const,
      kind: 'EndpointSlice' as const,
      metadata: {
        namespace: metadata.namespace,
        name: `${metadata.name}-${family.toLowerCase()}${i === 0 ? '' : `-${i}`}`,
        labels: {
          [serviceNameLabel]: metadata.name,
          [managedByLabel]: manager,
          // What a real cluster says of headless services.
          ...(spec.clusterIP === 'None' ? { 'service.kubernetes.io/headless': '' } : {}),
        },
        ownerReferences: [
          { apiVersion: 'v1', kind: 'Service', name: metadata.name, uid: metadata.uid, controller: true },
        ],
      },
      addressType: family,
      ...group,
    }));
  });
}

function endpointOf(pod: Live<Pod>, address: string, publishNotReady: boolean): SliceEndpoint {
  const { metadata, spec, status } = pod;
  const terminating = metadata.deletionTimestamp !== undefined;
  const serving = status?.conditions?.some(({ type, status: holds }) => type === 'ContainersReady' && holds === 'True');
  const { hostname, subdomain } = spec;
  return {
    addresses: [address],
    conditions: { ready: isReady(pod) || publishNotReady, serving: serving === true, terminating },
    ...(hostname !== undefined && subdomain !== undefined ? { hostname } : {}),
    ...(spec.nodeName === undefined ? {} : { nodeName: spec.nodeName }),
    targetRef: { kind: 'Pod', namespace: metadata.namespace, name: metadata.name, uid: metadata.uid },
  };
}

/** A target port may be a number, a name (looked up among the pod's ports), or absent: then it is the service's own. */
function resolvePort(port: ServicePort, pod: Pod): SlicePort[] {
  const { name = '', protocol = 'TCP', targetPort = port.port, appProtocol } = port;
  const number = typeof targetPort === 'number' ? targetPort : namedPort(pod, targetPort, protocol);
  if (number === undefined) return [];
  return [{ name, protocol, port: number, ...(appProtocol === undefined ? {} : { appProtocol }) }];
}

function namedPort({ spec }: Pod, name: string, protocol: string): number | undefined {
  const sidecars = (spec.initContainers ?? []).filter((container) => container.restartPolicy === 'Always');
  for (const { ports = [] } of [...spec.containers, ...sidecars])
    for (const port of ports)
      if (port.name === name && (port.protocol ?? 'TCP') === protocol) return port.containerPort;
  return undefined;
}

function addressOf({ status }: Pod, family: Family): string | undefined {
  for (const { ip = '' } of status?.podIPs ?? []) {
    const address = tryParseIp(ip);
    if (address !== undefined && familyOf(address) === family) return address;
  }
  return undefined;
}
