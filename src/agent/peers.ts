import { familyOf, type IpAddress } from '../model/address.ts';
import type { PodView } from '../model/endpoint.ts';
import { formatSpiffeId } from '../model/identity.ts';
import type { BreachRadius } from '../tunnel/handshake/exchange.ts';
import type { LocalPod, PeerNode, PeerResolver, RemotePod } from '../tunnel/peers.ts';
import type { ClusterState } from './cluster-state.ts';

/** What the tunnels believe of other pods: the agent's view, which is a belief and never proof. */
export class ClusterPeers implements PeerResolver {
  readonly #state: ClusterState;
  readonly #options: { readonly node: string; readonly trustDomain: string; readonly underlayFamily: 4 | 6 };

  constructor(state: ClusterState, options: { node: string; trustDomain: string; underlayFamily: 4 | 6 }) {
    this.#state = state;
    this.#options = options;
  }

  podAt(address: IpAddress): RemotePod | undefined {
    const pod = this.#state.podAt(address);
    if (pod === undefined || pod.node === this.#options.node) return undefined;
    const node = this.#node(pod.node);
    return node === undefined ? undefined : { ...this.local(pod), node };
  }

  nodeAt(address: IpAddress): PeerNode | undefined {
    const name = this.#state.nodeAt(address);
    return name === undefined ? undefined : { name, address };
  }

  /** A pod as its certificate names it. */
  local(pod: PodView): LocalPod {
    const { namespace, name, uid, serviceAccount, addresses } = pod;
    const { trustDomain } = this.#options;
    return {
      pod: { namespace, name, uid },
      spiffeId: formatSpiffeId({ trustDomain, namespace, serviceAccount }),
      addresses,
    };
  }

  /**
   * What keys of the two pods may come out of: `node` only where both namespaces take that.
   * @param fallback For namespaces that say nothing.
   */
  radius(local: LocalPod, remote: LocalPod, fallback: BreachRadius): BreachRadius {
    const asked = [local, remote].map(({ pod }) => this.#state.radiusOf(pod.namespace) ?? fallback);
    return asked.includes('pod') ? 'pod' : 'node';
  }

  #node(name: string): PeerNode | undefined {
    const addresses = this.#state.node(name)?.addresses ?? [];
    const address = addresses.find((ip) => familyOf(ip) === this.#options.underlayFamily) ?? addresses[0];
    return address === undefined ? undefined : { name, address };
  }
}
