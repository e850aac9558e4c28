import type { IpAddress } from './address.ts';
import type { Labels } from './labels.ts';
import type { Protocol } from './port.ts';

/** A pod's name for all time: namespace and name can come back, the UID cannot. */
export interface PodRef {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

/** A container port that has a name, which a policy may use in place of its number. */
export interface NamedPort {
  readonly name: string;
  readonly protocol: Protocol;
  readonly port: number;
}

/** A pod as policy, tunnels and telemetry see it. */
export interface PodView extends PodRef {
  readonly labels: Labels;
  readonly serviceAccount: string;
  readonly node: string;
  /** At most one of each family; none until the pod has its network. */
  readonly addresses: readonly IpAddress[];
  readonly namedPorts: readonly NamedPort[];
  /** Whether what policy asks of its requests is never, or always, left to the proxy. Absent: what only the proxy reads. */
  readonly proxy?: 'never' | 'required';
  /** Shares its node's network: it has no endpoint and no tunnel of its own. */
  readonly hostNetwork: boolean;
}

export function podName(pod: { readonly namespace: string; readonly name: string }): string {
  return `${pod.namespace}/${pod.name}`;
}
