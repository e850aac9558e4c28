import type { NamedPort } from '../../model/endpoint.ts';
import { type IdentityNumber, reservedIdentity } from '../../model/identity.ts';
import { selects } from '../../model/labels.ts';
import type { IdentityClass } from '../image.ts';
import { matchesNamespace } from '../match.ts';
import type { PeerMatch, PodMatch, Rule } from '../rule.ts';
import type { ClusterView } from '../view.ts';
import { holdsRegion } from './regions.ts';

type PodClass = Extract<IdentityClass, { kind: 'pod' }>;
type Numbered<C> = { readonly number: IdentityNumber; readonly class: C };

/**
 * Finds the identities that a rule's peers match. Equal peers are looked for once, however many rules have them.
 * Reserved identities have no region and are no pods, so they match `any` only.
 */
export class PeerIndex {
  readonly #namespaces: ClusterView['namespaces'];
  readonly #podsByNamespace = new Map<string, Numbered<PodClass>[]>();
  readonly #regional: Numbered<IdentityClass>[] = [];
  readonly #portsByNumber = new Map<IdentityNumber, readonly NamedPort[]>();
  readonly #found = new Map<string, readonly IdentityNumber[]>();

  constructor(identities: ReadonlyMap<IdentityNumber, IdentityClass>, namespaces: ClusterView['namespaces']) {
    this.#namespaces = namespaces;
    for (const [number, made] of identities) {
      if (made.region !== undefined) this.#regional.push({ number, class: made });
      if (made.kind !== 'pod') continue;
      if (made.namedPorts.length > 0) this.#portsByNumber.set(number, made.namedPorts);
      const list = this.#podsByNamespace.get(made.namespace);
      if (list === undefined) this.#podsByNamespace.set(made.namespace, [{ number, class: made }]);
      else list.push({ number, class: made });
    }
  }

  /** @returns Sorted, without duplicates; `[any]` where the rule is about everybody. */
  identitiesOf(rule: Rule): readonly IdentityNumber[] {
    if (rule.peers === 'any') return [reservedIdentity.any];
    const [only, ...others] = rule.peers;
    if (only !== undefined && others.length === 0) return this.#find(only);
    return [...new Set(rule.peers.flatMap((peer) => this.#find(peer)))].sort((a, b) => a - b);
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
    return this.#regional
      .filter(({ class: { region } }) => region !== undefined && holdsRegion(cidr, except, region))
      .map(({ number }) => number);
  }
}
