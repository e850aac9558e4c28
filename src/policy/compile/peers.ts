import type { NamedPort } from '../../model/endpoint.ts';
import { type IdentityNumber, reservedIdentity } from '../../model/identity.ts';
import { selects } from '../../model/labels.ts';
import type { Prefix } from '../../model/prefix.ts';
import { differences } from '../../model/versions.ts';
import type { IdentityClass } from '../image.ts';
import { matchesName, matchesNamespace, principalOf } from '../match.ts';
import { type CidrMatch, leavesOf, type NameMatch, type PeerMatch, type Rule } from '../rule.ts';
import type { ClusterView } from '../view.ts';
import { push, replaced } from './lists.ts';
import type { Regions } from './regions.ts';

/** What the answers depend on. */
export interface Grounds {
  readonly identities: ReadonlyMap<IdentityNumber, IdentityClass>;
  readonly view: Pick<ClusterView, 'namespaces' | 'nodes' | 'settings'>;
  /** The node that compiles. */
  readonly node: string;
  /** Those of all the rules that will be asked about, and of the classes. */
  readonly regions: Regions;
  /** The numbers of patterns of names. */
  readonly patterns: ReadonlyMap<string, IdentityNumber>;
}

interface Found {
  readonly peer: PeerMatch;
  /** Sorted, without duplicates. */
  readonly numbers: readonly IdentityNumber[];
}

/** Who has no class: this node, the world, another node. */
const classless: readonly IdentityNumber[] = [
  reservedIdentity.host,
  reservedIdentity.world,
  reservedIdentity.remoteNode,
];

/**
 * Finds the identities that a rule's peers match. Equal peers are looked for once, however many rules have them, and what
 * was found is kept from one compilation to the next: then only identities that came or went are looked at. A cache:
 * what it says depends on nothing but the last grounds.
 */
export class PeerIndex {
  #grounds: Grounds;
  #byNamespace = new Map<string, IdentityNumber[]>();
  #found = new Map<string, Found>();
  /** What has been asked about since the last update. */
  #asked = new Set<string>();
  #prefixes = new WeakMap<PeerMatch, ReadonlySet<Prefix>>();
  #withNamedPorts: readonly IdentityNumber[] | undefined;

  constructor(grounds: Grounds) {
    this.#grounds = grounds;
    this.#reset();
  }

  update(grounds: Grounds): void {
    const old = this.#grounds;
    this.#grounds = grounds;
    // What nobody asked about is of rules that are gone.
    for (const key of this.#found.keys()) if (!this.#asked.has(key)) this.#found.delete(key);
    this.#asked = new Set();
    if (!sameSurroundings(old, grounds)) {
      this.#reset();
      return;
    }
    if (old.regions !== grounds.regions) {
      this.#prefixes = new WeakMap();
      for (const [key, { peer }] of this.#found) if (asksForAddresses(peer)) this.#found.delete(key);
    }
    this.#replace(old.identities, grounds.identities);
  }

  /** @returns Sorted, without duplicates; `[any]` where the rule is about everybody. */
  identitiesOf({ peers }: Rule): readonly IdentityNumber[] {
    if (peers === 'any') return [reservedIdentity.any];
    const [only, ...others] = plainOf(peers);
    const numbers = this.#find(only !== undefined && others.length === 0 ? only : someOf(plainOf(peers))).numbers;
    const names = peers.filter(isName);
    if (names.length === 0) return numbers;
    // Patterns' numbers come after all others.
    const { patterns } = this.#grounds;
    const known = new Set(names.flatMap(({ pattern }) => patterns.get(pattern.pattern) ?? []));
    return [...numbers, ...[...known].sort((a, b) => a - b)];
  }

  /** The identities that stand for pods with named ports, which `any` has to be spelt out to where a rule names a port. */
  get withNamedPorts(): readonly IdentityNumber[] {
    this.#withNamedPorts ??= [...this.#grounds.identities.keys()]
      .filter((number) => this.namedPortsOf(number).length > 0)
      .sort((a, b) => a - b);
    return this.#withNamedPorts;
  }

  namedPortsOf(identity: IdentityNumber): readonly NamedPort[] {
    const made = this.#grounds.identities.get(identity);
    return made?.kind === 'pod' ? made.namedPorts : [];
  }

  #reset(): void {
    this.#found = new Map();
    this.#prefixes = new WeakMap();
    this.#withNamedPorts = undefined;
    this.#byNamespace = new Map();
    for (const [number, made] of this.#grounds.identities)
      if (made.kind === 'pod') push(this.#byNamespace, made.namespace, number);
  }

  #replace(before: Grounds['identities'], now: Grounds['identities']): void {
    if (before === now) return;
    const gone: IdentityNumber[] = [];
    const come: IdentityNumber[] = [];
    for (const number of differences(before, now)) {
      const [old, made] = [before.get(number), now.get(number)];
      if (old?.key === made?.key) continue;
      if (old !== undefined) gone.push(number);
      if (made !== undefined) come.push(number);
    }
    if (gone.length + come.length > 1000) {
      this.#reset();
      return;
    }
    if (gone.length + come.length === 0) return;
    for (const number of gone) {
      const made = before.get(number);
      if (made?.kind !== 'pod') continue;
      const others = this.#byNamespace.get(made.namespace)?.filter((own) => own !== number) ?? [];
      this.#byNamespace.set(made.namespace, others);
    }
    for (const number of come) {
      const made = now.get(number);
      if (made?.kind === 'pod') push(this.#byNamespace, made.namespace, number);
    }
    const named = come.filter((number) => this.namedPortsOf(number).length > 0);
    this.#withNamedPorts = this.#withNamedPorts && replaced(this.#withNamedPorts, gone, named);
    for (const [key, { peer, numbers }] of this.#found) {
      const added = come.filter((number) => this.#holds(peer, number));
      const left = replaced(numbers, gone, added);
      if (left !== numbers) this.#found.set(key, { peer, numbers: left });
    }
  }

  #find(peer: PeerMatch): Found {
    const key = keyOf(peer);
    this.#asked.add(key);
    if (peer.kind === 'some') for (const one of peer.of) this.#asked.add(keyOf(one));
    const known = this.#found.get(key);
    if (known !== undefined) return known;
    const numbers =
      peer.kind === 'some'
        ? // Of several peers most have been looked for before.
          [...new Set(peer.of.flatMap((one) => this.#find(one).numbers))]
        : this.#candidates(peer).filter((number) => this.#holds(peer, number));
    const found = { peer, numbers: numbers.sort((a, b) => a - b) };
    this.#found.set(key, found);
    return found;
  }

  /** Everybody who could match, and perhaps others. */
  #candidates(peer: PeerMatch): IdentityNumber[] {
    if (peer.kind === 'pods') {
      const { namespaces } = this.#grounds.view;
      if ('name' in peer.namespaces) return [...(this.#byNamespace.get(peer.namespaces.name) ?? [])];
      const lists = [...this.#byNamespace].filter(([name]) =>
        matchesNamespace(peer.namespaces, name, namespaces.get(name)),
      );
      return lists.flatMap(([, numbers]) => numbers);
    }
    return [...classless, ...this.#grounds.identities.keys()];
  }

  #holds(peer: PeerMatch, number: IdentityNumber): boolean {
    const { view, identities, node } = this.#grounds;
    const made = identities.get(number);
    const pod = made?.kind === 'pod' ? made : undefined;
    const world = number === reservedIdentity.world || made?.kind === 'world';
    switch (peer.kind) {
      case 'pods':
        return (
          pod !== undefined &&
          matchesNamespace(peer.namespaces, pod.namespace, view.namespaces.get(pod.namespace)) &&
          selects(peer.pods, pod.labels)
        );
      case 'cidr':
        return (
          made?.region !== undefined && (world || peer.worldOnly !== true) && this.#prefixesOf(peer).has(made.region)
        );
      case 'node': {
        const own = number === reservedIdentity.host || made?.kind === 'this-node';
        const other = number === reservedIdentity.remoteNode || made?.kind === 'other-node';
        if (!(peer.which === 'own' ? own : peer.which === 'other' ? other : own || other)) return false;
        if (peer.labels === undefined) return true;
        const labels = own ? view.nodes.get(node)?.labels : made?.kind === 'other-node' ? made.labels : {};
        return selects(peer.labels, labels ?? {});
      }
      case 'world':
        return world;
      case 'account':
        return pod !== undefined && matchesName(peer.match, pod.serviceAccount);
      case 'namespace':
        return pod !== undefined && matchesName(peer.match, pod.namespace);
      case 'principal':
        return pod !== undefined && matchesName(peer.match, principalOf(view.settings, pod));
      case 'authenticated':
        return pod !== undefined;
      case 'all':
        return peer.of.every((one) => this.#holds(one, number));
      case 'some':
        return peer.of.some((one) => this.#holds(one, number));
      case 'not':
        return !this.#holds(peer.peer, number);
    }
  }

  /** The regions that are inside. */
  #prefixesOf(peer: CidrMatch): ReadonlySet<Prefix> {
    const known = this.#prefixes.get(peer);
    if (known !== undefined) return known;
    const made = new Set(this.#grounds.regions.within(peer.cidr, peer.except));
    this.#prefixes.set(peer, made);
    return made;
  }
}

/** Whether all but identities, regions and patterns are as they were. */
function sameSurroundings(a: Grounds, b: Grounds): boolean {
  return (
    a.node === b.node &&
    a.view.nodes.get(a.node)?.labels === b.view.nodes.get(b.node)?.labels &&
    a.view.settings.trustDomain === b.view.settings.trustDomain &&
    differences(a.view.namespaces, b.view.namespaces).next().done === true
  );
}

function asksForAddresses(peer: PeerMatch): boolean {
  return [...leavesOf(peer)].some(({ kind }) => kind === 'cidr');
}

function isName(peer: PeerMatch | NameMatch): peer is NameMatch {
  return peer.kind === 'name';
}

/** The peers of a list that are not names, as one list for as long as that lives. */
const plain = new WeakMap<readonly (PeerMatch | NameMatch)[], readonly PeerMatch[]>();

function plainOf(peers: readonly (PeerMatch | NameMatch)[]): readonly PeerMatch[] {
  const known = plain.get(peers);
  if (known !== undefined) return known;
  const made = peers.filter((peer): peer is PeerMatch => !isName(peer));
  plain.set(peers, made);
  return made;
}

/** Peers and lists of them stay the same objects from compilation to compilation. */
const keys = new WeakMap<PeerMatch, string>();
const unions = new WeakMap<readonly PeerMatch[], PeerMatch>();

function keyOf(peer: PeerMatch): string {
  const known = keys.get(peer);
  if (known !== undefined) return known;
  const key = JSON.stringify(peer);
  keys.set(peer, key);
  return key;
}

function someOf(peers: readonly PeerMatch[]): PeerMatch {
  const known = unions.get(peers);
  if (known !== undefined) return known;
  const made: PeerMatch = { kind: 'some', of: peers };
  unions.set(peers, made);
  return made;
}
