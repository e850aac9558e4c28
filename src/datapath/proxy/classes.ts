import { createHash } from 'node:crypto';
import { type IdentityNumber, identityNumber } from '../../model/identity.ts';
import type { IdentityClass } from '../../policy/image.ts';
import type { DatapathMaps } from '../objects.ts';
import type { Transaction } from '../transaction.ts';

type Identities = ReadonlyMap<IdentityNumber, IdentityClass>;

/**
 * Owner of the map `identity_classes`: by it the datapath knows that two numbers, of two agents, are one peer's, and lets
 * what goes by way of the proxy go on. Nodes without a proxy have nothing in it.
 */
export class ClassTable {
  readonly #maps: Pick<DatapathMaps, 'identityClasses' | 'config'>;
  readonly #written: Set<IdentityNumber>;

  constructor(maps: Pick<DatapathMaps, 'identityClasses' | 'config'>) {
    this.#maps = maps;
    this.#written = new Set([...maps.identityClasses.entries()].map(([number]) => identityNumber(number)));
  }

  /** How many entries there are while those of `next` come beside those that were. */
  needs(next: Identities): { readonly map: string; readonly entries: number } {
    return { map: this.#maps.identityClasses.name, entries: this.#written.size + this.#missing(next).length };
  }

  /** Writes the classes of new numbers: before any packet can bear them. @throws {KernelError} `Errno` */
  put(transaction: Transaction, next: Identities): void {
    transaction.add(
      this.#maps.identityClasses,
      this.#missing(next).map(([number, { key }]) => [number, classHash(key)]),
    );
  }

  /** To be called once what `put` wrote stays. */
  note(next: Identities): void {
    for (const [number] of this.#missing(next)) this.#written.add(number);
  }

  /** Removes numbers that no packet bears any more. @throws {KernelError} `Errno` */
  keepOnly(next: Identities): void {
    for (const number of this.#written) {
      if (next.has(number)) continue;
      this.#maps.identityClasses.delete(number);
      this.#written.delete(number);
    }
  }

  #missing(next: Identities): (readonly [IdentityNumber, IdentityClass])[] {
    if (this.#maps.config.get(0)?.proxyIfindex === 0) return [];
    return [...next].filter(([number]) => !this.#written.has(number));
  }
}

/** Never one of the numbers below 256, which stand for themselves. */
export function classHash(key: string): number {
  return (createHash('sha256').update(key).digest().readUInt32LE(0) | 0x8000_0000) >>> 0;
}
