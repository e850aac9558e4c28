import { createHash } from 'node:crypto';
import type { IpAddress } from '../../model/address.ts';
import type { PodView } from '../../model/endpoint.ts';
import { type Labels, labelsKey, type Selector } from '../../model/labels.ts';
import type { Prefix } from '../../model/prefix.ts';
import type { AddressConflict, IdentityClass, PeerEntry } from '../image.ts';
import { leavesOfRules, type Rule } from '../rule.ts';
import type { ClusterView, NodeView } from '../view.ts';
import { push } from './lists.ts';
import type { Regions } from './regions.ts';

/**
 * Labels that controllers put on single replicas or single rollouts. They would make every pod a class of its own, so
 * they count only where a policy of the node names them.
 */
const replicaLabels: ReadonlySet<string> = new Set([
  'pod-template-hash',
  'pod-template-generation',
  'controller-revision-hash',
  'statefulset.kubernetes.io/pod-name',
  'apps.kubernetes.io/pod-index',
  'batch.kubernetes.io/controller-uid',
  'batch.kubernetes.io/job-name',
  'batch.kubernetes.io/job-completion-index',
  'controller-uid',
  'job-name',
]);

/** Whose address it is, before numbers are given. */
export interface ClassifiedPeer {
  readonly kind: PeerEntry['kind'];
  readonly owner: string;
  /** Undefined for a node in no region without labels that matter: it has a reserved identity. */
  readonly class: IdentityClass | undefined;
}

interface Owner {
  /** The pod's UID, or the node's name. */
  readonly id: string;
  /** Where it is, or itself. */
  readonly node: string;
  readonly pod?: PodView;
  readonly nodeLabels?: Labels;
  readonly region: Prefix | undefined;
}

/**
 * Finds the class of every pod's and node's address.
 * @param node The node that compiles.
 * @param rules All rules that peers are matched against: they say which replica labels matter.
 */
export function classify(
  view: ClusterView,
  node: string,
  rules: Iterable<Rule>,
  regions: Regions,
): { peers: Map<IpAddress, ClassifiedPeer>; conflicts: AddressConflict[] } {
  const { owners, conflicts } = ownersByAddress(view, regions);
  const inhabited = new Set<Prefix>();
  for (const { region } of owners.values()) if (region !== undefined) inhabited.add(region);
  const regionKeys = keysOfRegions(regions, inhabited);
  const { named, namedOfNodes } = namedLabels(rules);
  const classes = new Map<string, IdentityClass>();
  const intern = (key: string, make: () => IdentityClass): IdentityClass => {
    const known = classes.get(key);
    if (known !== undefined) return known;
    const made = make();
    classes.set(key, made);
    return made;
  };
  const classOf = (
    { pod, nodeLabels = {}, region }: Owner,
    kind: ClassifiedPeer['kind'],
  ): IdentityClass | undefined => {
    const place = region === undefined ? {} : { region };
    const placeKey = region === undefined ? '' : ` ${regionKeys.get(region) ?? region}`;
    if (pod !== undefined) {
      const traits = traitsOfPod(pod, named);
      const key = `${traits.key}${placeKey}`;
      const { namespace, serviceAccount, namedPorts } = pod;
      const { labels } = traits;
      return intern(key, () => ({ key, kind: 'pod', namespace, serviceAccount, labels, namedPorts, ...place }));
    }
    const labels = Object.fromEntries(Object.entries(nodeLabels).filter(([label]) => namedOfNodes.has(label)));
    if (region === undefined && Object.keys(labels).length === 0) return undefined;
    const nodeKind = kind === 'this-node' ? kind : 'other-node';
    const key = `${nodeKind} ${labelsKey(labels)}${placeKey}`;
    return intern(key, () => ({ key, kind: nodeKind, labels, ...place }));
  };

  const peers = new Map<IpAddress, ClassifiedPeer>();
  for (const [address, owner] of owners) {
    const here = owner.node === node;
    const podKind = here ? 'local-pod' : 'remote-pod';
    const nodeKind = here ? 'this-node' : 'other-node';
    const kind = owner.pod === undefined ? nodeKind : podKind;
    peers.set(address, { kind, owner: owner.id, class: classOf(owner, kind) });
  }
  return { peers, conflicts };
}

/** The class of those addresses of a region that are nobody's. */
export function worldClass(region: Prefix): IdentityClass & { readonly region: Prefix } {
  return { key: `world ${region}`, kind: 'world', region };
}

/** Owners of addresses that have exactly one. */
function ownersByAddress(
  view: ClusterView,
  regions: Regions,
): { owners: Map<IpAddress, Owner>; conflicts: AddressConflict[] } {
  const owners = new Map<IpAddress, Owner>();
  const claims = new Map<IpAddress, Set<string>>();
  const claim = (id: string, node: string, source: PodView | NodeView, who: Partial<Owner>): void => {
    const found = regions.find(source);
    for (const [i, address] of source.addresses.entries()) {
      const first = owners.get(address);
      const own = { id, node, region: found[i], ...who };
      if (first === undefined) owners.set(address, own);
      else if (first.id !== id) claims.set(address, (claims.get(address) ?? new Set([first.id])).add(id));
    }
  };
  for (const [name, nodeView] of view.nodes) claim(name, name, nodeView, { nodeLabels: nodeView.labels ?? {} });
  for (const pod of view.pods.values()) if (!pod.hostNetwork) claim(pod.uid, pod.node, pod, { pod });
  for (const address of claims.keys()) owners.delete(address);
  const conflicts = [...claims].map(([address, ids]) => ({ address, owners: [...ids].sort() }));
  return { owners, conflicts: conflicts.sort((a, b) => (a.address < b.address ? -1 : 1)) };
}

/**
 * A region's part of a class key. A class must mean the same under the same key for ever, because who holds its number
 * (a proven tunnel) learns of a change later than the rule sets do. So the key also names the smaller regions with pods
 * or nodes that are cut out of this one: where one more is cut out, or one less, the rest gets a new number.
 */
function keysOfRegions(regions: Regions, inhabited: ReadonlySet<Prefix>): Map<Prefix, string> {
  const holes = new Map<Prefix, Prefix[]>();
  for (const region of inhabited) for (const outer of regions.around(region)) push(holes, outer, region);
  const keyOf = (region: Prefix): string => {
    const own = holes.get(region);
    if (own === undefined) return region;
    return `${region} without ${createHash('sha256').update(own.sort().join()).digest('base64')}`;
  };
  return new Map([...inhabited].map((region) => [region, keyOf(region)]));
}

/** Those replica labels of pods (as one text), and those labels of nodes, that some rule's peer names. */
function namedLabels(rules: Iterable<Rule>): { named: string; namedOfNodes: ReadonlySet<string> } {
  const named = new Set<string>();
  const namedOfNodes = new Set<string>();
  for (const peer of leavesOfRules(rules)) {
    if (peer.kind === 'pods') for (const key of keysOf(peer.pods)) if (replicaLabels.has(key)) named.add(key);
    if (peer.kind === 'node') for (const key of keysOf(peer.labels ?? {})) namedOfNodes.add(key);
  }
  return { named: [...named].sort().join(' '), namedOfNodes };
}

function keysOf({ matchLabels = {}, matchExpressions = [] }: Selector): string[] {
  return [...Object.keys(matchLabels), ...matchExpressions.map((requirement) => requirement.key)];
}

/** What of a pod its class is made of, the region left out. */
interface Traits {
  readonly named: string;
  readonly key: string;
  readonly labels: Labels;
}

/** Pods are never changed in place, so what was derived from one holds as long as the object lives. */
const traitsByPod = new WeakMap<PodView, Traits>();

/** @param named Replica labels that count, as one text; part of the key, because with it changes what a class means. */
function traitsOfPod(pod: PodView, named: string): Traits {
  const known = traitsByPod.get(pod);
  if (known?.named === named) return known;
  const counting = new Set(named.split(' '));
  const entries = Object.entries(pod.labels).filter(([key]) => !replicaLabels.has(key) || counting.has(key));
  const labels = Object.fromEntries(entries);
  const ports = pod.namedPorts.map(({ name, protocol, port }) => `${name}/${protocol}=${port}`).sort();
  const key = `pod ${pod.namespace} ${pod.serviceAccount} ${labelsKey(labels)} ${ports.join(',')} ${named}`;
  const traits = { named, key, labels };
  traitsByPod.set(pod, traits);
  return traits;
}
