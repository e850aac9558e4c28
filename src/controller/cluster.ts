import type { Logger } from 'pino';
import { isApiError } from '../api/client/error.ts';
import { Reflector } from '../api/client/reflector.ts';
import type { Api } from '../api/client/types.ts';
import { kinds, type Live, type Node, type Pod } from '../api/kinds.ts';
import { type IpAddress, tryParseIp } from '../model/address.ts';
import { MyelinError } from '../model/error.ts';
import { type Prefix, parsePrefix } from '../model/prefix.ts';
import type { NodeFacts, PodFacts } from './admission.ts';
import type { NodeCidrs, NodeStore } from './node-cidrs.ts';

const byAddress = 'address';

/** What the controller reads of the cluster: pods and nodes, copied by list and watch; and the one thing it writes. */
export class Cluster implements NodeStore {
  readonly #api: Api;
  readonly #pods: Reflector<Pod>;
  readonly #nodes: Reflector<Node>;

  constructor(deps: { readonly api: Api; readonly logger: Logger }) {
    this.#api = deps.api;
    this.#pods = new Reflector<Pod>(
      {
        resource: kinds.Pod,
        indexes: { [byAddress]: ({ object }) => (object === undefined ? [] : podFacts(object).addresses) },
      },
      deps,
    );
    this.#nodes = new Reflector<Node>({ resource: kinds.Node }, deps);
  }

  /** Resolves when both first lists are in. */
  async start(): Promise<void> {
    this.#pods.start();
    this.#nodes.start();
    await Promise.all([this.#pods.synced, this.#nodes.synced]);
  }

  async close(): Promise<void> {
    await Promise.all([this.#pods.close(), this.#nodes.close()]);
  }

  /**
   * The pod as it is now: asked of the API, because a certificate must not be signed for what was true a moment ago.
   * @throws {ApiError} when the API cannot be asked.
   */
  async pod(namespace: string, name: string): Promise<PodFacts | undefined> {
    try {
      return podFacts(await this.#api.get(kinds.Pod, { namespace, name }));
    } catch (error) {
      if (isApiError(error, 'NotFound')) return undefined;
      throw error;
    }
  }

  /** The pod as last seen, or undefined once it is gone. */
  knownPod(namespace: string, name: string): PodFacts | undefined {
    const entry = this.#pods.get(`${namespace}/${name}`);
    return entry?.object === undefined ? undefined : podFacts(entry.object);
  }

  podsAt(address: IpAddress): PodFacts[] {
    return this.#pods
      .byIndex(byAddress, address)
      .flatMap(({ object }) => (object === undefined ? [] : [podFacts(object)]));
  }

  node(name: string): NodeFacts | undefined {
    const node = this.#nodes.get(name)?.object;
    return node === undefined ? undefined : { name, podCidrs: podCidrsOf(node) };
  }

  nodes(): NodeCidrs[] {
    return this.#nodes.objects().map((node) => ({
      name: node.metadata.name,
      podCidrs: podCidrsOf(node),
      resourceVersion: node.metadata.resourceVersion,
    }));
  }

  onNodes(listener: () => void): () => void {
    return this.#nodes.onChange(listener);
  }

  async setPodCidrs(node: NodeCidrs, podCidrs: readonly Prefix[]): Promise<void> {
    const { name, resourceVersion } = node;
    const patch = { metadata: { resourceVersion }, spec: { podCIDR: podCidrs[0], podCIDRs: podCidrs } };
    await this.#api.patch(kinds.Node, { name }, { type: 'merge', patch });
  }
}

function podFacts(pod: Live<Pod>): PodFacts {
  const { metadata, spec, status } = pod;
  const texts = status?.podIPs?.map(({ ip }) => ip) ?? [status?.podIP];
  const addresses = texts.flatMap((text) => (text === undefined ? [] : (tryParseIp(text) ?? [])));
  return {
    namespace: metadata.namespace ?? '',
    name: metadata.name,
    uid: metadata.uid,
    node: spec.nodeName ?? '',
    serviceAccount: spec.serviceAccountName || 'default',
    // In its node's network it has its node's addresses, which are no pod's.
    addresses: spec.hostNetwork === true ? [] : addresses,
    hostNetwork: spec.hostNetwork === true,
    ended: status?.phase === 'Succeeded' || status?.phase === 'Failed',
  };
}

function podCidrsOf({ spec }: Live<Node>): Prefix[] {
  const texts = spec?.podCIDRs ?? (spec?.podCIDR === undefined ? [] : [spec.podCIDR]);
  return texts.flatMap((text) => {
    try {
      return [parsePrefix(text)];
    } catch (error) {
      // A prefix that cannot be read covers no address.
      if (error instanceof MyelinError) return [];
      throw error;
    }
  });
}
