import type { NamedPort } from '../../model/endpoint.ts';
import { type IdentityNumber, reservedIdentity } from '../../model/identity.ts';
import { type Labels, selects } from '../../model/labels.ts';
import { hostPrefix, type Prefix } from '../../model/prefix.ts';
import type { IdentityClass } from '../image.ts';
import { addressesNamed, matchesName, matchesNamespace, principalOf } from '../match.ts';
import type { CidrMatch, PeerMatch, PodMatch, Rule } from '../rule.ts';
import type { ClusterView } from '../view.ts';
import { push } from './lists.ts';
import type { Regions } from './regions.ts';

type PodClass = Extract<IdentityClass, { kind: 'pod' }>;
type Numbered<C> = { readonly number: IdentityNumber; readonly class: C };

/** What the answers depend on. */
export interface Grounds {
  readonly identities: ReadonlyMap<IdentityNumber, IdentityClass>;
  readonly view: Pick<ClusterView, 'namespaces' | 'nodes' | 'settings'>;
  /** The node that compiles. */
  readonly node: string;
  /** Those of all the rules that will be asked about, and of the classes. */
  readonly regions: Regions;
}

/**
 * Finds the identities that a rule's peers match. Equal peers are looked for once, however many rules have them.
 * Who has no class is one of three reserved identities: this node, another node, the world.
 */
export class PeerIndex {
  readonly #grounds: Grounds;
  readonly #podsByNamespace = new Map<string, Numbered<PodClass>[]>();
  readonly #nodes: { readonly number: IdentityNumber; readonly own: boolean; readonly labels: Labels }[];
  readonly #world: IdentityNumber[] = [reservedIdentity.world];
  readonly #byRegion = new Map<Prefix, IdentityNumber[]>();
  readonly #portsByNumber = new Map<IdentityNumber, readonly NamedPort[]>();
  readonly #found = new Map<string, readonly IdentityNumber[]>();
  readonly #byRule = new WeakMap<Rule, readonly IdentityNumber[]>();

  constructor(grounds: Grounds) {
    this.#grounds = grounds;
    const { identities, view, node } = grounds;
    this.#nodes = [
      { number: reservedIdentity.host, own: true, labels: view.nodes.get(node)?.labels ?? {} },
      { number: reservedIdentity.remoteNode, own: false, labels: {} },
    ];
    for (const [number, made] of identities) {
      if (made.region !== undefined) push(this.#byRegion, made.region, number);
      if (made.kind === 'world') this.#world.push(number);
      else if (made.kind === 'pod') {
        if (made.namedPorts.length > 0) this.#portsByNumber.set(number, made.namedPorts);
        push(this.#podsByNamespace, made.namespace, { number, class: made });
      } else this.#nodes.push({ number, own: made.kind === 'this-node', labels: made.labels });
    }
  }

  /** Whether an index of these grounds would have the same answers. A number's class never changes, so the numbers suffice. */
  answersFor({ identities, view, node, regions }: Grounds): boolean {
    const own = this.#grounds;
    return (
      own.regions === regions &&
      own.node === node &&
      own.view.nodes.get(node)?.labels === view.nodes.get(node)?.labels &&
      own.view.settings.trustDomain === view.settings.trustDomain &&
      own.view.settings.names === view.settings.names &&
      identities.size === own.identities.size &&
      view.namespaces.size === own.view.namespaces.size &&
      [...view.namespaces].every(([name, labels]) => own.view.namespaces.get(name) === labels) &&
      [...identities.keys()].every((number) => own.identities.has(number))
    );
  }

  /** @returns Sorted, without duplicates; `[any]` where the rule is about everybody. */
  identitiesOf(rule: Rule): readonly IdentityNumber[] {
    if (rule.peers === 'any') return [reservedIdentity.any];
    const known = this.#byRule.get(rule);
    if (known !== undefined) return known;
    const [only, ...others] = rule.peers;
    const found = only !== undefined && others.length === 0 ? this.#find(only) : this.#union(rule.peers);
    this.#byRule.set(rule, found);
    return found;
  }

  #union(peers: readonly PeerMatch[]): IdentityNumber[] {
    return [...new Set(peers.flatMap((peer) => this.#find(peer)))].sort((a, b) => a - b);
  }

  /** The identities that stand for pods with named ports, which `any` has to be spelt out to where a rule names a port. */
  get withNamedPorts(): readonly IdentityNumber[] {
    return [...this.#portsByNumber.keys()];
  }

  namedPortsOf(identity: IdentityNumber): readonly NamedPort[] {
    return this.#portsByNumber.get(identity) ?? [];
  }

  #find(peer: PeerMatch): readonly IdentityNumber[] {
    const key = JSON.stringify(peer);
    const known = this.#found.get(key);
    if (known !== undefined) return known;
    const found = [...new Set(this.#search(peer))].sort((a, b) => a - b);
    this.#found.set(key, found);
    return found;
  }

  /** @returns In any order, perhaps repeated. */
  #search(peer: PeerMatch): readonly IdentityNumber[] {
    const { settings } = this.#grounds.view;
    switch (peer.kind) {
      case 'pods':
        return this.#selected(peer);
      case 'cidr':
        return this.#inCidr(peer);
      case 'node': {
        const { which, labels } = peer;
        const nodes = this.#nodes.filter(({ own }) => which === 'any' || (which === 'own') === own);
        const selected = labels === undefined ? nodes : nodes.filter((node) => selects(labels, node.labels));
        return selected.map(({ number }) => number);
      }
      case 'world':
        return this.#world;
      case 'account':
        return this.#pods(({ serviceAccount }) => matchesName(peer.match, serviceAccount));
      case 'namespace':
        return this.#pods(({ namespace }) => matchesName(peer.match, namespace));
      case 'principal':
        return this.#pods((pod) => matchesName(peer.match, principalOf(settings, pod)));
      case 'authenticated':
        return this.#pods(() => true);
      case 'name': {
        const addresses = [...addressesNamed(settings, peer.pattern)];
        return addresses.flatMap((address) => this.#worldIn(this.#byRegion.get(hostPrefix(address)) ?? []));
      }
      case 'all': {
        const [first = this.#everybody(), ...others] = peer.of.map((one) => this.#find(one));
        return others.reduce((left, other) => intersection(left, other), first);
      }
      case 'some':
        return peer.of.flatMap((one) => this.#find(one));
      case 'not': {
        const excluded = new Set(this.#find(peer.peer));
        return this.#everybody().filter((number) => !excluded.has(number));
      }
    }
  }

  #everybody(): readonly IdentityNumber[] {
    const { host, remoteNode, world } = reservedIdentity;
    return [host, world, remoteNode, ...this.#grounds.identities.keys()];
  }

  #pods(matches: (pod: PodClass) => boolean): IdentityNumber[] {
    const all = [...this.#podsByNamespace.values()].flat();
    return all.filter((pod) => matches(pod.class)).map(({ number }) => number);
  }

  #selected({ namespaces, pods }: PodMatch): IdentityNumber[] {
    const found: IdentityNumber[] = [];
    for (const [name, classes] of this.#podsByNamespace) {
      if (!matchesNamespace(namespaces, name, this.#grounds.view.namespaces.get(name))) continue;
      for (const { number, class: own } of classes) if (selects(pods, own.labels)) found.push(number);
    }
    return found;
  }

  #inCidr({ cidr, except, worldOnly }: CidrMatch): IdentityNumber[] {
    const found = [...this.#grounds.regions.within(cidr, except)].flatMap((region) => this.#byRegion.get(region) ?? []);
    return worldOnly ? this.#worldIn(found) : found;
  }

  #worldIn(numbers: readonly IdentityNumber[]): IdentityNumber[] {
    return numbers.filter((number) => this.#grounds.identities.get(number)?.kind === 'world');
  }
}

function intersection<T>(a: readonly T[], b: readonly T[]): readonly T[] {
  const other = new Set(b);
  return a.filter((one) => other.has(one));
}
