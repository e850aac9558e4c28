import type { Datapath } from '../../datapath/datapath.ts';
import type { PodView } from '../../model/endpoint.ts';
import { type EndpointEntry, type PolicyImage, type RuleSet, setIdOf, stages } from '../../policy/image.ts';
import type { PortHint } from './hints.ts';

export interface ProxyPortsDeps {
  readonly datapath: Pick<Datapath, 'policy' | 'proxyClients' | 'proxyPorts' | 'setProxyPort'> & {
    endpointById(id: number): { readonly uid: string } | undefined;
  };
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
   * @returns Whether there are any that policy asks for requests at, or clients of such that the kernel could not answer.
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
    for (const { endpoint } of datapath.proxyClients()) {
      const uid = datapath.endpointById(endpoint)?.uid ?? '';
      needed ||= pod(uid)?.proxy !== 'never' && isRead(datapath.policy, endpoints.get(uid));
    }
    // Before the datapath could learn otherwise.
    for (const [uid, endpoint] of endpoints)
      if (pod(uid)?.proxy === 'never')
        for (const port of portsRead(datapath.policy, endpoint))
          if (!known.has(`${uid} ${port}`)) datapath.setProxyPort(uid, port, 'never');
    for (const { address, port } of hints()) {
      const uid = peers.get(address)?.owner ?? '';
      if (!isRead(datapath.policy, endpoints.get(uid)) || pod(uid)?.proxy === 'never') continue;
      needed = true;
      if (!known.has(`${uid} ${port}`)) datapath.setProxyPort(uid, port, 'always');
    }
    return needed;
  }
}

/** The rule sets by which the kernel reads requests to the pod. */
function setsRead(image: PolicyImage, endpoint: EndpointEntry): RuleSet[] {
  return stages.flatMap((stage) => {
    const set = image.ruleSets.get(setIdOf(endpoint, 'ingress', stage));
    return set?.matcher === undefined ? [] : [set];
  });
}

/** Whether the kernel reads requests to the pod. */
function isRead(image: PolicyImage, endpoint: EndpointEntry | undefined): boolean {
  return endpoint !== undefined && setsRead(image, endpoint).length > 0;
}

/** The single ports at which it does; ranges are not spelt out. */
function portsRead(image: PolicyImage, endpoint: EndpointEntry): number[] {
  return setsRead(image, endpoint).flatMap(({ entries }) =>
    entries.flatMap(({ requests, port, portLength }) => (requests !== undefined && portLength === 16 ? [port] : [])),
  );
}
