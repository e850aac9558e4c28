import { type Family, familyOf, type IpAddress } from '../../model/address.ts';
import { type Prefix, prefixOf, prefixParts, prefixWithin } from '../../model/prefix.ts';
import type { Rule } from '../rule.ts';

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

  constructor(rules: Iterable<Rule>) {
    const known = new Set<Prefix>();
    for (const { peers } of rules)
      for (const peer of peers === 'any' ? [] : peers)
        if (peer.kind === 'cidr') for (const prefix of [peer.cidr, ...peer.except]) known.add(prefix);
    this.#known = known;
    this.prefixes = [...known].sort();
    const lengths = (family: Family): number[] => {
      const parts = this.prefixes.map(prefixParts).filter((part) => part.family === family);
      return [...new Set(parts.map(({ length }) => length))].sort((a, b) => b - a);
    };
    this.#lengths = { 4: lengths(4), 6: lengths(6) };
  }

  /** @returns The longest prefix that holds the address. */
  find(address: IpAddress): Prefix | undefined {
    return this.#holding(address, 128).next().value;
  }

  /** @returns The prefixes that hold all of `prefix` and more, the longest first. */
  around(prefix: Prefix): Iterable<Prefix> {
    const { address, length } = prefixParts(prefix);
    return this.#holding(address, length - 1);
  }

  *#holding(address: IpAddress, longest: number): Generator<Prefix, undefined> {
    for (const length of this.#lengths[familyOf(address)]) {
      if (length > longest) continue;
      const prefix = prefixOf(address, length);
      if (this.#known.has(prefix)) yield prefix;
    }
  }
}

/** Whether a CIDR with exceptions holds a region; by construction it holds all of it or none. */
export function holdsRegion(cidr: Prefix, except: readonly Prefix[], region: Prefix): boolean {
  return prefixWithin(region, cidr) && !except.some((hole) => prefixWithin(region, hole));
}
