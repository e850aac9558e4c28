import type { IpAddress } from '../model/address.ts';
import type { PodView } from '../model/endpoint.ts';
import type { Labels } from '../model/labels.ts';
import type { Prefix } from '../model/prefix.ts';
import type { Policy } from './rule.ts';

/**
 * All of the cluster that policy depends on, at one moment. Values are never changed in place: an object that is the same
 * object as in an earlier view is taken to be unchanged, which is what makes compiling again cheap.
 */
export interface ClusterView {
  /** By UID. Only pods that have, or are about to have, their network: not those that ended. */
  readonly pods: ReadonlyMap<string, PodView>;
  /** Labels by name. The API gives every namespace `kubernetes.io/metadata.name`; nothing is added here. */
  readonly namespaces: ReadonlyMap<string, Labels>;
  readonly nodes: ReadonlyMap<string, NodeView>;
  /** No two of the same kind, namespace and name. */
  readonly policies: readonly Policy[];
  readonly settings: PolicySettings;
}

export interface NodeView {
  readonly addresses: readonly IpAddress[];
  /** Absent: none. */
  readonly labels?: Labels;
}

/** `PolicySettings.trustDomain` where it is not set. */
export const defaultTrustDomain = 'cluster.local';

export interface PolicySettings {
  /** Where no policy selects a pod: allow, as Kubernetes has it, or deny. Default false. */
  readonly defaultDeny?: boolean;
  /** The same for single namespaces; wins over `defaultDeny`. */
  readonly namespaceDefaultDeny?: ReadonlyMap<string, boolean>;
  /** Where pods' addresses come from: one that no known pod has is `UNKNOWN_PEER`. */
  readonly podCidrs?: readonly Prefix[];
  /** Where services' addresses come from: one that reaches policy untranslated is `NO_SERVICE_BACKEND`. */
  readonly serviceCidrs?: readonly Prefix[];
  /** Of the pods' identities. Default `cluster.local`. */
  readonly trustDomain?: string;
}
