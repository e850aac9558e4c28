import type { IpAddress } from '../../model/address.ts';
import type { ProgramPaths } from './images.ts';
import type { Prober } from './prober.ts';

/** What a pod's life needs to know of the node that it lives on. */
export interface NodeContext {
  readonly lab: string;
  readonly name: string;
  readonly netns: string;
  readonly addresses: readonly IpAddress[];
  /** Of the node's agent. */
  readonly runDir: string;
  /** Directory of the CNI plugin. */
  readonly cniPath: string;
  /** Tries connections from the node's namespace, as a kubelet does. */
  readonly prober: Prober;
  /** Below which each pod gets a cgroup of its own. */
  readonly cgroup: string;
  /** Below which each pod gets a directory of its own. */
  readonly podsDirectory: string;
  readonly logsDirectory: string;
  readonly dnsAddress: IpAddress;
  readonly clusterDomain: string;
  /** Where containers find the lab's programs. */
  readonly paths: ProgramPaths;
  /** Directory of the staged programs on the machine. */
  readonly stagedPrograms: string;
}
