import { isDeepStrictEqual } from 'node:util';
import type { Live, Namespace, Node, Pod, PodSpec } from '../api/kinds.ts';
import { type IpAddress, tryParseIp } from '../model/address.ts';
import type { NamedPort, PodView } from '../model/endpoint.ts';
import type { Labels } from '../model/labels.ts';
import { type Prefix, parsePrefix } from '../model/prefix.ts';
import { Changing } from '../model/versions.ts';
import type { ClusterView, NodeView, PolicySettings } from '../policy/image.ts';
import { settle } from '../policy/istio/settle.ts';
import type { Policy } from '../policy/rule.ts';
import { AddressIndex } from './address-index.ts';

/** On a Namespace: `allow` or `deny` for its pods that no policy selects; anything else denies. */
const defaultVerdictAnnotation = 'myelin.dev/default-verdict';
/** On a Pod: `never` or `required`, or `auto`; anything else is `never`, the strictest (docs/HTTP.md). */
const proxyAnnotation = 'myelin.dev/proxy';
/** On a Namespace: `node` where its pods may share a handshake of their node's (docs/TUNNELS.md); anything else is `pod`. */
export const breachRadiusAnnotation = 'myelin.dev/breach-radius';

/**
 * What this agent believes of the cluster: the API's objects, reduced to what policy, tunnels and telemetry need.
 * Values are replaced, never changed; what an update leaves as it was stays the same object (ClusterView counts on it),
 * and only a real change calls `onChange`.
 */
export class ClusterState {
  #settings: PolicySettings;
  readonly #onChange: () => void;
  readonly #pods = new Map<string, PodView>();
  readonly #namespaces = new Map<string, Labels>();
  /** Namespaces with a default of their own: whether it is to deny. */
  readonly #namespaceDefaults = new Map<string, boolean>();
  /** Namespaces with a breach radius of their own. */
  readonly #radii = new Map<string, 'pod' | 'node'>();
  readonly #nodes = new Map<string, NodeView & { readonly podCidrs: readonly Prefix[] }>();
  /** By kind and key; an object may be several policies. */
  readonly #policies = new Map<string, readonly Policy[]>();
  /** Addresses of pods here, which this node knows before the API does. */
  readonly #localAddresses = new Map<string, readonly IpAddress[]>();
  /** API pods as last seen, to be reduced again when their local addresses change. */
  readonly #sources = new Map<string, Live<Pod>>();
  readonly #byAddress = new AddressIndex();
  /** What views show of pods, namespaces and nodes. */
  readonly #shown = {
    pods: new Changing<string, PodView>(),
    namespaces: new Changing<string, Labels>(),
    nodes: new Changing<string, NodeView>(),
  };
  #settled: readonly Policy[] | undefined;
  #view: ClusterView | undefined;

  constructor(settings: PolicySettings, onChange: () => void) {
    this.#settings = settings;
    this.#onChange = onChange;
  }

  /** What holds where no policy selects a pod, unless its namespace says otherwise. */
  setDefaultDeny(defaultDeny: boolean): void {
    if (this.#settings.defaultDeny === defaultDeny) return;
    this.#settings = { ...this.#settings, defaultDeny };
    this.#changed();
  }

  setPod(pod: Live<Pod>): void {
    this.#sources.set(pod.metadata.uid, pod);
    this.#reducePod(pod);
  }

  removePod(uid: string): void {
    this.#sources.delete(uid);
    if (this.#putPod(uid, undefined)) this.#changed();
  }

  setNamespace(namespace: Live<Namespace>): void {
    const { name, labels = {}, annotations = {} } = namespace.metadata;
    const verdict = annotations[defaultVerdictAnnotation];
    // What is not understood denies.
    const deny = verdict === undefined ? undefined : verdict !== 'allow';
    const asked = annotations[breachRadiusAnnotation];
    // What is not understood is the stricter.
    const radius = asked === undefined ? undefined : asked === 'node' ? 'node' : 'pod';
    const same =
      isDeepStrictEqual(this.#namespaces.get(name), labels) &&
      this.#namespaceDefaults.get(name) === deny &&
      this.#radii.get(name) === radius;
    if (same) return;
    const known = this.#namespaces.has(name);
    this.#namespaces.set(name, labels);
    this.#shown.namespaces.set(name, labels);
    if (!known) this.#showPodsOf(name);
    if (radius === undefined) this.#radii.delete(name);
    else this.#radii.set(name, radius);
    this.#setNamespaceDefault(name, deny);
    this.#changed();
  }

  removeNamespace(name: string): void {
    this.#setNamespaceDefault(name, undefined);
    this.#radii.delete(name);
    if (!this.#namespaces.delete(name)) return;
    this.#shown.namespaces.set(name, undefined);
    this.#showPodsOf(name);
    this.#changed();
  }

  #setNamespaceDefault(name: string, deny: boolean | undefined): void {
    if (this.#namespaceDefaults.get(name) === deny) return;
    if (deny === undefined) this.#namespaceDefaults.delete(name);
    else this.#namespaceDefaults.set(name, deny);
    this.#settings = { ...this.#settings, namespaceDefaultDeny: new Map(this.#namespaceDefaults) };
  }

  setNode(node: Live<Node>): void {
    const { labels } = node.metadata;
    const view = {
      ...(labels === undefined ? {} : { labels }),
      addresses: (node.status?.addresses ?? []).flatMap(({ type, address }) => {
        const ip = type === 'InternalIP' ? tryParseIp(address) : undefined;
        return ip === undefined ? [] : [ip];
      }),
      podCidrs: (node.spec?.podCIDRs ?? (node.spec?.podCIDR === undefined ? [] : [node.spec.podCIDR])).map(parsePrefix),
    };
    if (isDeepStrictEqual(this.#nodes.get(node.metadata.name), view)) return;
    this.#nodes.set(node.metadata.name, view);
    this.#shown.nodes.set(node.metadata.name, view);
    this.#changed();
  }

  removeNode(name: string): void {
    if (!this.#nodes.delete(name)) return;
    this.#shown.nodes.set(name, undefined);
    this.#changed();
  }

  /** @param key Of one object, unique among all kinds. */
  setPolicies(key: string, policies: readonly Policy[]): void {
    if (isDeepStrictEqual(this.#policies.get(key), policies)) return;
    this.#policies.set(key, policies);
    this.#settled = undefined;
    this.#changed();
  }

  removePolicies(key: string): void {
    if (!this.#policies.delete(key)) return;
    this.#settled = undefined;
    this.#changed();
  }

  /** This node gave a pod its addresses, or (with none) took them back. */
  setLocalAddresses(uid: string, addresses: readonly IpAddress[]): void {
    if (addresses.length === 0) this.#localAddresses.delete(uid);
    else this.#localAddresses.set(uid, addresses);
    const source = this.#sources.get(uid);
    if (source !== undefined) this.#reducePod(source);
  }

  get view(): ClusterView {
    this.#view ??= {
      pods: this.#shown.pods.now,
      namespaces: this.#shown.namespaces.now,
      nodes: this.#shown.nodes.now,
      policies: this.policies,
      settings: this.#settings,
    };
    return this.#view;
  }

  pod(uid: string): PodView | undefined {
    return this.#pods.get(uid);
  }

  podByName(name: string): PodView | undefined {
    for (const pod of this.#pods.values()) if (`${pod.namespace}/${pod.name}` === name) return pod;
    return undefined;
  }

  /** The pod that has the address; undefined also where two claim it. Pods in their node's network have none. */
  podAt(address: IpAddress): PodView | undefined {
    return this.#byAddress.at(address);
  }

  node(name: string): (NodeView & { readonly podCidrs: readonly Prefix[] }) | undefined {
    return this.#nodes.get(name);
  }

  nodeAt(address: IpAddress): string | undefined {
    for (const [name, node] of this.#nodes) if (node.addresses.includes(address)) return name;
    return undefined;
  }

  /** What the namespace asks for; undefined where it says nothing. */
  radiusOf(namespace: string): 'pod' | 'node' | undefined {
    return this.#radii.get(namespace);
  }

  get nodeNames(): readonly string[] {
    return [...this.#nodes.keys()];
  }

  /** As they stand beside each other. */
  get policies(): readonly Policy[] {
    this.#settled ??= settle([...this.#policies.values()].flat());
    return this.#settled;
  }

  #reducePod(pod: Live<Pod>): void {
    const uid = pod.metadata.uid;
    const view = podView(pod, this.#localAddresses.get(uid));
    if (isDeepStrictEqual(this.#pods.get(uid), view)) return;
    this.#putPod(uid, view);
    this.#changed();
  }

  /** @returns Whether there was such a pod. */
  #putPod(uid: string, pod: PodView | undefined): boolean {
    const before = this.#pods.get(uid);
    if (pod === undefined) this.#pods.delete(uid);
    else this.#pods.set(uid, pod);
    this.#byAddress.replace(before, pod);
    this.#show(uid, pod);
    return before !== undefined;
  }

  /** Until a namespace's labels are known nobody can say which policies are about its pods: they are nobody, and closed. */
  #show(uid: string, pod: PodView | undefined): void {
    this.#shown.pods.set(uid, pod !== undefined && this.#namespaces.has(pod.namespace) ? pod : undefined);
  }

  #showPodsOf(namespace: string): void {
    for (const [uid, pod] of this.#pods) if (pod.namespace === namespace) this.#show(uid, pod);
  }

  #changed(): void {
    this.#view = undefined;
    this.#onChange();
  }
}

/** @returns undefined for a pod that ended or is not on a node yet: it has no network. */
function podView(pod: Live<Pod>, localAddresses: readonly IpAddress[] | undefined): PodView | undefined {
  const { metadata, spec, status } = pod;
  if (spec?.nodeName === undefined || status?.phase === 'Succeeded' || status?.phase === 'Failed') return undefined;
  const texts = status?.podIPs?.map(({ ip }) => ip) ?? [status?.podIP];
  const reported = texts.flatMap((text) => {
    const ip = text === undefined ? undefined : tryParseIp(text);
    return ip === undefined ? [] : [ip];
  });
  return {
    namespace: metadata.namespace,
    name: metadata.name,
    uid: metadata.uid,
    labels: metadata.labels ?? {},
    serviceAccount: spec.serviceAccountName ?? 'default',
    node: spec.nodeName,
    addresses: localAddresses ?? reported,
    namedPorts: namedPorts(spec.containers),
    hostNetwork: spec.hostNetwork === true,
    ...proxyUse(metadata.annotations?.[proxyAnnotation], spec.runtimeClassName),
  };
}

/** The sockets of a sandboxed guest are not the host's: where its annotation leaves it open, only the proxy can read. */
function proxyUse(said: string | undefined, runtimeClass: string | undefined): Pick<PodView, 'proxy'> {
  if (said === 'required') return { proxy: 'required' };
  if (said !== undefined && said !== 'auto') return { proxy: 'never' };
  return runtimeClass === undefined || runtimeClass === '' ? {} : { proxy: 'required' };
}

function namedPorts(containers: PodSpec['containers']): NamedPort[] {
  return containers.flatMap(({ ports = [] }) =>
    ports.flatMap(({ name, protocol = 'TCP', containerPort }) =>
      name === undefined ? [] : [{ name, protocol, port: containerPort }],
    ),
  );
}
