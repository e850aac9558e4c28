import type { NamedPort } from '../../model/endpoint.ts';
import { type IdentityNumber, reservedIdentity } from '../../model/identity.ts';
import { selects } from '../../model/labels.ts';
import type { Prefix } from '../../model/prefix.ts';
import type { IdentityClass } from '../image.ts';
import { matchesNamespace } from '../match.ts';
import type { PeerMatch, PodMatch, Rule } from '../rule.ts';
import type { ClusterView } from '../view.ts';
import { push } from './lists.ts';
import type { Regions } from './regions.ts';

type PodClass = Extract<IdentityClass, { kind: 'pod' }>;
type Numbered<C> = { readonly number: IdentityNumber; readonly class: C };

/**
 * Finds the identities that a rule's peers match. Equal peers are looked for once, however many rules have them.
 * Reserved identities have no region and are no pods, so they match `any` only.
 */
export class PeerIndex {
  readonly #identities: ReadonlyMap<IdentityNumber, IdentityClass>;
  readonly #namespaces: ClusterView['namespaces'];
  readonly #podsByNamespace = new Map<string, Numbered<PodClass>[]>();
  readonly #byRegion = new Map<Prefix, IdentityNumber[]>();
  readonly #regions: Regions;
  readonly #portsByNumber = new Map<IdentityNumber, readonly NamedPort[]>();
  readonly #found = new Map<string, readonly IdentityNumber[]>();
  readonly #byRule = new WeakMap<Rule, readonly IdentityNumber[]>();

  /** @param regions Those of all the rules that will be asked about, and of the classes. */
  constructor(
    identities: ReadonlyMap<IdentityNumber, IdentityClass>,
    namespaces: ClusterView['namespaces'],
    regions: Regions,
  ) {
    this.#identities = identities;
    this.#namespaces = namespaces;
    this.#regions = regions;
    for (const [number, made] of identities) {
      if (made.region !== undefined) push(this.#byRegion, made.region, number);
      if (made.kind !== 'pod') continue;
      if (made.namedPorts.length > 0) this.#portsByNumber.set(number, made.namedPorts);
      push(this.#podsByNamespace, made.namespace, { number, class: made });
    }
  }

  /** Whether an index of these would have the same answers. A number's class never changes, so the numbers suffice. */
  answersFor(
    identities: ReadonlyMap<IdentityNumber, IdentityClass>,
    namespaces: ClusterView['namespaces'],
    regions: Regions,
  ): boolean {
    return (
      this.#regions === regions &&
      identities.size === this.#identities.size &&
      namespaces.size === this.#namespaces.size &&
      [...namespaces].every(([name, labels]) => this.#namespaces.get(name) === labels) &&
      [...identities.keys()].every((number) => this.#identities.has(number))
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
    const found = peer.kind === 'pods' ? this.#pods(peer) : this.#addresses(peer);
    found.sort((a, b) => a - b);
    this.#found.set(key, found);
    return found;
  }

  #pods({ namespaces, pods }: PodMatch): IdentityNumber[] {
    const found: IdentityNumber[] = [];
    for (const [name, classes] of this.#podsByNamespace) {
      if (!matchesNamespace(namespaces, name, this.#namespaces.get(name))) continue;
      for (const { number, class: own } of classes) if (selects(pods, own.labels)) found.push(number);
    }
    return found;
  }

  #addresses({ cidr, except }: Extract<PeerMatch, { kind: 'cidr' }>): IdentityNumber[] {
    return [...this.#regions.within(cidr, except)].flatMap((region) => this.#byRegion.get(region) ?? []);
  }
}
