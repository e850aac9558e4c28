import { type Family, familyOf, type IpAddress } from '../../model/address.ts';
import { type Prefix, prefixOf, prefixParts } from '../../model/prefix.ts';
import { leavesOfRules, type Rule } from '../rule.ts';
import { push } from './lists.ts';

/**
 * The prefixes that rules name (CIDRs and their exceptions) cut the address space into regions: two addresses whose
 * longest prefix is the same are inside and outside of the same CIDRs, so no rule can tell them apart.
 */
export class Regions {
  /** Sorted by text. */
  readonly prefixes: readonly Prefix[];
  readonly #known: ReadonlySet<string>;
  /** Longest first. */
  readonly #lengths: Readonly<Record<Family, readonly number[]>>;
  /** Directly below each prefix. */
  readonly #below = new Map<Prefix, Prefix[]>();

  /** @param prefixes Sorted, without duplicates. */
  private constructor(prefixes: readonly Prefix[]) {
    this.prefixes = prefixes;
    this.#known = new Set(prefixes);
    const parts = prefixes.map(prefixParts);
    const lengths = (family: Family): number[] => {
      const own = parts.filter((part) => part.family === family).map(({ length }) => length);
      return [...new Set(own)].sort((a, b) => b - a);
    };
    this.#lengths = { 4: lengths(4), 6: lengths(6) };
    for (const prefix of prefixes) {
      const [above] = this.around(prefix);
      if (above !== undefined) push(this.#below, above, prefix);
    }
  }

  /** The regions that these rules make; `previous` itself if they are the same. */
  static of(rules: Iterable<Rule>, previous?: Regions): Regions {
    const prefixes = new Set<Prefix>();
    for (const peer of leavesOfRules(rules)) {
      if (peer.kind === 'cidr') for (const prefix of [peer.cidr, ...peer.except]) prefixes.add(prefix);
    }
    const same = previous?.prefixes.length === prefixes.size && previous.prefixes.every((one) => prefixes.has(one));
    return same ? previous : new Regions([...prefixes].sort());
  }

  /** @returns The longest prefix that holds the address. */
  holding(address: IpAddress): Prefix | undefined {
    return this.#holding(address, 128).next().value;
  }

  /** @returns The prefixes that hold all of `prefix` and more, the longest first. */
  around(prefix: Prefix): Iterable<Prefix> {
    const { address, length } = prefixParts(prefix);
    return this.#holding(address, length - 1);
  }

  /** @returns The regions of which a CIDR with exceptions holds every address; of the others it holds none. */
  *within(cidr: Prefix, except: readonly Prefix[]): Iterable<Prefix> {
    if (except.includes(cidr)) return;
    yield cidr;
    for (const below of this.#below.get(cidr) ?? []) yield* this.within(below, except);
  }

  *#holding(address: IpAddress, longest: number): Generator<Prefix, undefined> {
    for (const length of this.#lengths[familyOf(address)]) {
      if (length > longest) continue;
      const prefix = prefixOf(address, length);
      if (this.#known.has(prefix)) yield prefix;
    }
  }
}
