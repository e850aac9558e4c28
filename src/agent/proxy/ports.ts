import type { Datapath } from '../../datapath/datapath.ts';
import type { PodView } from '../../model/endpoint.ts';
import { type EndpointEntry, type PolicyImage, setIdOf, stages } from '../../policy/image.ts';
import type { PortHint } from './hints.ts';

export interface ProxyPortsDeps {
  readonly datapath: Pick<Datapath, 'policy' | 'proxyPorts' | 'setProxyPort' | 'endpointById'>;
  readonly hints: () => readonly PortHint[];
  readonly pod: (uid: string) => Pick<PodView, 'proxy'> | undefined;
}

/**
 * Ports of this node's pods at which the kernel would read requests and cannot: Services say so, or it has learnt it by
 * what came. What was said once stays, as what was learnt does; pods that forbid the proxy have none.
 */
export class HintedPorts {
  readonly #deps: ProxyPortsDeps;

  constructor(deps: ProxyPortsDeps) {
    this.#deps = deps;
  }

  /**
   * Tells the datapath what is new.
   * @returns Whether there are any that policy asks for requests at.
   * @throws {KernelError} `Errno` where the map is full
   */
  refresh(): boolean {
    const { datapath, hints, pod } = this.#deps;
    const { peers, endpoints } = datapath.policy;
    const known = new Map<string, 'always' | 'never'>();
    let needed = false;
    for (const { endpoint, port, mode } of datapath.proxyPorts()) {
      const uid = datapath.endpointById(endpoint)?.uid ?? '';
      const forbidden = pod(uid)?.proxy === 'never';
      if (forbidden !== (mode === 'never')) datapath.setProxyPort(uid, port, forbidden ? 'never' : 'always');
      known.set(`${uid} ${port}`, forbidden ? 'never' : 'always');
      needed ||= !forbidden && isRead(datapath.policy, endpoints.get(uid));
    }
    for (const { address, port } of hints()) {
      const uid = peers.get(address)?.owner ?? '';
      if (!isRead(datapath.policy, endpoints.get(uid)) || pod(uid)?.proxy === 'never') continue;
      needed = true;
      if (!known.has(`${uid} ${port}`)) datapath.setProxyPort(uid, port, 'always');
    }
    return needed;
  }
}

/** Whether the kernel reads requests to the pod. */
function isRead(image: PolicyImage, endpoint: EndpointEntry | undefined): boolean {
  if (endpoint === undefined) return false;
  return stages.some((stage) => image.ruleSets.get(setIdOf(endpoint, 'ingress', stage))?.matcher !== undefined);
}
