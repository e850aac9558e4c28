import { createHash } from 'node:crypto';
import type { IpAddress } from '../../model/address.ts';
import type { PodView } from '../../model/endpoint.ts';
import { type Labels, labelsKey, type Selector } from '../../model/labels.ts';
import type { Prefix } from '../../model/prefix.ts';
import type { AddressConflict, IdentityClass, PeerEntry } from '../image.ts';
import type { Rule } from '../rule.ts';
import type { ClusterView } from '../view.ts';
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
  /** Undefined for a node in no region: it has a reserved identity. */
  readonly class: IdentityClass | undefined;
}

type Owner = { readonly pod: PodView } | { readonly node: string };

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
  const { owners, conflicts } = ownersByAddress(view);
  const located = [...owners].map(([address, owner]) => ({ address, owner, region: regions.find(address) }));
  const regionKeys = keysOfRegions(regions, new Set(located.flatMap(({ region }) => region ?? [])));
  const keyOf = (region: Prefix): string => regionKeys.get(region) ?? region;
  const named = namedReplicaLabels(rules);
  const classes = new Map<string, IdentityClass>();
  const intern = (key: string, make: () => IdentityClass): IdentityClass => {
    const known = classes.get(key) ?? make();
    classes.set(key, known);
    return known;
  };
  const podClass = (pod: PodView, region: Prefix | undefined): IdentityClass => {
    const traits = traitsOfPod(pod, named);
    const key = region === undefined ? traits.key : `${traits.key} ${keyOf(region)}`;
    const { namespace, serviceAccount, namedPorts } = pod;
    const place = region === undefined ? {} : { region };
    const { labels } = traits;
    return intern(key, () => ({ key, kind: 'pod', namespace, serviceAccount, labels, namedPorts, ...place }));
  };
  const nodeClass = (kind: 'this-node' | 'other-node', region: Prefix | undefined): IdentityClass | undefined => {
    if (region === undefined) return undefined;
    const key = `${kind} ${keyOf(region)}`;
    return intern(key, () => ({ key, kind, region }));
  };

  const peers = new Map<IpAddress, ClassifiedPeer>();
  for (const { address, owner, region } of located) {
    if ('pod' in owner) {
      const kind = owner.pod.node === node ? 'local-pod' : 'remote-pod';
      peers.set(address, { kind, owner: owner.pod.uid, class: podClass(owner.pod, region) });
    } else {
      const kind = owner.node === node ? 'this-node' : 'other-node';
      peers.set(address, { kind, owner: owner.node, class: nodeClass(kind, region) });
    }
  }
  return { peers, conflicts };
}

/** The class of those addresses of a region that are nobody's. */
export function worldClass(region: Prefix): IdentityClass & { readonly region: Prefix } {
  return { key: `world ${region}`, kind: 'world', region };
}

/** Owners of addresses that have exactly one. */
function ownersByAddress(view: ClusterView): { owners: Map<IpAddress, Owner>; conflicts: AddressConflict[] } {
  const owners = new Map<IpAddress, Owner>();
  const claims = new Map<IpAddress, Owner[]>();
  const claim = (address: IpAddress, owner: Owner): void => {
    const first = owners.get(address);
    if (first === undefined) owners.set(address, owner);
    else claims.set(address, [...(claims.get(address) ?? [first]), owner]);
  };
  for (const [name, { addresses }] of view.nodes)
    for (const address of new Set(addresses)) claim(address, { node: name });
  for (const pod of view.pods.values())
    if (!pod.hostNetwork) for (const address of new Set(pod.addresses)) claim(address, { pod });
  const conflicts = [...claims].map(([address, all]) => ({
    address,
    owners: all.map((owner) => ('pod' in owner ? owner.pod.uid : owner.node)).sort(),
  }));
  for (const { address } of conflicts) owners.delete(address);
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

function push<K, V>(lists: Map<K, V[]>, key: K, value: V): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [value]);
  else list.push(value);
}

/** Those replica labels that some rule's peer selector names, as one text. */
function namedReplicaLabels(rules: Iterable<Rule>): string {
  const named = new Set<string>();
  const collect = ({ matchLabels = {}, matchExpressions = [] }: Selector): void => {
    for (const key of [...Object.keys(matchLabels), ...matchExpressions.map((requirement) => requirement.key)])
      if (replicaLabels.has(key)) named.add(key);
  };
  for (const { peers } of rules)
    for (const peer of peers === 'any' ? [] : peers) if (peer.kind === 'pods') collect(peer.pods);
  return [...named].sort().join(' ');
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
