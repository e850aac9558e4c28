import type { Logger } from 'pino';
import type { Datapath } from '../datapath/datapath.ts';
import type { Endpoint } from '../endpoint/endpoint.ts';
import type { EndpointHooks, NotReady } from '../endpoint/hooks.ts';
import type { SvidStore } from '../identity/svid-store.ts';
import type { TunnelManager } from '../tunnel/manager.ts';
import type { ClusterState } from './cluster-state.ts';
import type { ClusterPeers } from './peers.ts';
import type { PolicyLoop } from './policy-loop.ts';

export interface LocalPodsDeps {
  readonly datapath: Datapath;
  readonly state: ClusterState;
  readonly policy: PolicyLoop;
  readonly svids: SvidStore;
  readonly tunnels: TunnelManager;
  readonly peers: ClusterPeers;
  readonly logger: Logger;
  /** Why no pod can be added now. */
  readonly notReady: () => NotReady | undefined;
}

/** How long an ADD waits for the API to say who the pod is; after that it is added all the same, and denied until known. */
const knownWithinMs = 2000;

/**
 * The pods of this node, from the moment that their interface exists: first the datapath that drops everything, then who
 * the pod is, its policy, its certificate and its tunnels. What goes is forgotten in the opposite order.
 */
export class LocalPods implements EndpointHooks {
  readonly #deps: LocalPodsDeps;
  /** By pod UID. */
  readonly #endpoints = new Map<string, Endpoint>();
  readonly #waiting = new Map<string, () => void>();

  constructor(deps: LocalPodsDeps) {
    this.#deps = deps;
  }

  get all(): readonly Endpoint[] {
    return [...this.#endpoints.values()];
  }

  prepare(endpoint: Endpoint): void {
    const { datapath, state } = this.#deps;
    const uid = uidOf(endpoint);
    // A sandbox that was made anew for the same pod takes the place of the one before.
    datapath.setEndpoint({
      uid,
      ifindex: endpoint.hostIndex,
      mac: endpoint.mac,
      hostMac: endpoint.hostMac,
      addresses: endpoint.addresses,
      netns: endpoint.netns,
    });
    this.#endpoints.set(uid, endpoint);
    state.setLocalAddresses(uid, endpoint.addresses);
  }

  async onAdded(endpoint: Endpoint): Promise<void> {
    const uid = uidOf(endpoint);
    await this.#known(uid);
    await this.#deps.policy.flush();
    this.#welcome(uid);
  }

  async onRemoved(endpoint: Endpoint): Promise<void> {
    const { datapath, state, svids, tunnels, policy } = this.#deps;
    const uid = uidOf(endpoint);
    // An older sandbox of a pod that has a newer one by now.
    if (this.#endpoints.get(uid)?.containerId !== endpoint.containerId) return;
    this.#endpoints.delete(uid);
    this.#waiting.get(uid)?.();
    datapath.removeEndpoint(uid);
    await tunnels.removeLocal(uid);
    svids.remove(uid);
    state.setLocalAddresses(uid, []);
    await policy.flush();
  }

  async check(endpoint: Endpoint): Promise<string | undefined> {
    const known = this.#deps.datapath.endpointByUid(uidOf(endpoint));
    return known?.ifindex === endpoint.hostIndex ? undefined : 'the datapath does not guard the interface';
  }

  async status(): Promise<NotReady | undefined> {
    return this.#deps.notReady();
  }

  /** The view has changed: pods that have become known get their certificate and may have tunnels. */
  refresh(): void {
    for (const [uid, wake] of [...this.#waiting]) if (this.#deps.state.pod(uid) !== undefined) wake();
    for (const uid of this.#endpoints.keys()) this.#welcome(uid);
  }

  /** Idempotent. */
  #welcome(uid: string): void {
    const { state, svids, tunnels, peers, logger } = this.#deps;
    const pod = state.pod(uid);
    if (pod === undefined || pod.addresses.length === 0) return;
    const { serviceAccount, addresses } = pod;
    svids
      .add({ pod: { namespace: pod.namespace, name: pod.name, uid }, serviceAccount, addresses })
      .catch((error: unknown) => {
        logger.debug({ err: error, pod: uid }, 'the pod went before it had a certificate');
      });
    tunnels
      .addLocal(peers.local(pod))
      .catch((error: unknown) => logger.error({ err: error, pod: uid }, 'a pod can have no tunnels'));
  }

  #known(uid: string): Promise<void> {
    if (this.#deps.state.pod(uid) !== undefined) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#waiting.delete(uid);
        resolve();
      };
      const timer = setTimeout(done, knownWithinMs);
      this.#waiting.set(uid, done);
    });
  }
}

/** A container that no Kubernetes runtime started has a name of its own that no pod can have: it stays denied. */
function uidOf(endpoint: Endpoint): string {
  return endpoint.pod?.uid ?? `container/${endpoint.containerId}`;
}
