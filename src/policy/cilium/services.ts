import type { z } from 'zod';
import type { IpAddress } from '../../model/address.ts';
import { type Labels, selects } from '../../model/labels.ts';
import { hostPrefix } from '../../model/prefix.ts';
import type { PeerMatch } from '../rule.ts';
import type { CiliumRuleSpec, serviceSpec } from './schema.ts';
import { nodeLabels, type Scope } from './selector.ts';

/** A Service as rules may name it. */
export interface ServiceView {
  readonly namespace: string;
  readonly name: string;
  readonly labels: Labels;
  /** Of all its endpoints, ready or not: whoever is connected to one that is about to go is not to be cut off. */
  readonly backends: readonly IpAddress[];
}

/** What the cluster says of its services at the moment; whoever reads policies by it reads them again when it changes. */
export interface ServiceLookup {
  /** By `namespace/name`. */
  readonly services: ReadonlyMap<string, ServiceView>;
  /** Where the API is served: the endpoints of the Service `default/kubernetes`. */
  readonly apiServers: readonly IpAddress[];
}

/** For those who only judge policies, and do not follow services: that somebody does is no limit of the policy. */
export const noServices: ServiceLookup = { services: new Map(), apiServers: [] };

/**
 * The backends of the services that an element of `toServices` is about. A namespace that is not named is the policy's
 * own where that is the stricter reading (to allow), and any where that is (to deny).
 * @returns Undefined where its selector asks for what is no label of a Service.
 */
export function backendsOf(
  { k8sService, k8sServiceSelector }: z.infer<typeof serviceSpec>,
  { services }: ServiceLookup,
  scope: Scope,
  verdict: 'allow' | 'deny',
): readonly PeerMatch[] | undefined {
  const own = typeof scope === 'object' && verdict === 'allow' ? scope.namespace : undefined;
  const found: ServiceView[] = [];
  const isIn = ({ namespace }: ServiceView, given: string | null | undefined): boolean =>
    [undefined, namespace].includes(given || own);
  if (k8sService?.serviceName) {
    for (const service of services.values())
      if (service.name === k8sService.serviceName && isIn(service, k8sService.namespace)) found.push(service);
  }
  if (k8sServiceSelector != null) {
    const labels = nodeLabels(k8sServiceSelector.selector);
    if (labels === undefined) return undefined;
    for (const service of services.values())
      if (selects(labels, service.labels) && isIn(service, k8sServiceSelector.namespace)) found.push(service);
  }
  return addressPeers(found.flatMap(({ backends }) => backends));
}

/** Whether a rule is about services or the API server, so that it means something else when those change. */
export function asksForServices({ ingress, ingressDeny, egress, egressDeny }: CiliumRuleSpec): boolean {
  const out = [...(egress ?? []), ...(egressDeny ?? [])];
  const entities = [
    ...[...(ingress ?? []), ...(ingressDeny ?? [])].flatMap(({ fromEntities }) => fromEntities ?? []),
    ...out.flatMap(({ toEntities }) => toEntities ?? []),
  ];
  return entities.includes('kube-apiserver') || out.some(({ toServices }) => (toServices ?? []).length > 0);
}

/** Whoever has one of the addresses: pod, node or neither. */
export function addressPeers(addresses: Iterable<IpAddress>): PeerMatch[] {
  return [...new Set(addresses)].sort().map((address) => ({ kind: 'cidr', cidr: hostPrefix(address), except: [] }));
}
