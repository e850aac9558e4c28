import type { IpAddress } from '../model/address.ts';
import type { IdentityNumber } from '../model/identity.ts';
import { unixTime } from './events.ts';
import { type NameValue, nameKey, nameValue } from './layouts.ts';
import type { DatapathMaps } from './objects.ts';

/** An address that an endpoint was told by DNS. */
export interface LearntName {
  /** The endpoint's id. */
  readonly endpoint: number;
  readonly address: IpAddress;
  /** That was asked for last. */
  readonly name: string;
  /** The patterns that it counts for, by number, and until when (Unix time, milliseconds). */
  readonly patterns: readonly { readonly number: IdentityNumber; readonly expiresAt: number }[];
  /** Last; Unix time, milliseconds. */
  readonly learntAt: number;
}

/** How long an entry stays that counts for nothing any more: so long flows can still be named, and the kernel renew it. */
const restNs = 60_000_000_000n;

/** What DNS told this node's endpoints. The programs write it; here it is read, and what has run out is collected. */
export class LearntNames {
  readonly #maps: Pick<DatapathMaps, 'names'>;
  readonly #isLive: (endpoint: number) => boolean;
  #count = 0;

  /** @param isLive Whether packets can still come under an endpoint's id. */
  constructor(maps: Pick<DatapathMaps, 'names'>, isLive: (endpoint: number) => boolean) {
    this.#maps = maps;
    this.#isLive = isLive;
  }

  /** Entries there were after the last collection. */
  get lastCount(): number {
    return this.#count;
  }

  /** All that counts now. */
  all(): LearntName[] {
    return [...this.#maps.names.entries()]
      .map(([key, value]) => learnt(key, value))
      .filter(({ patterns }) => patterns.length > 0);
  }

  /** What an endpoint was told about an address; it may have run out a while ago. */
  at(endpoint: number, address: IpAddress): LearntName | undefined {
    const value = this.#maps.names.get({ endpoint, address });
    return value === undefined ? undefined : learnt({ endpoint, address }, value);
  }

  /** Removes what has run out, and what endpoints that are gone were told. @returns How many. */
  collect(): number {
    const now = process.hrtime.bigint();
    const dead: Uint8Array[] = [];
    let count = 0;
    const key = nameKey.only('endpoint');
    const value = nameValue.only('expiresNs');
    for (const [{ endpoint }, { expiresNs }, raw] of this.#maps.names.scan(key, value)) {
      count++;
      if (!this.#isLive(endpoint) || expiresNs.every((at) => at + restNs < now)) dead.push(raw);
    }
    for (const raw of dead) this.#maps.names.raw.delete(raw);
    this.#count = count - dead.length;
    return dead.length;
  }
}

function learnt(key: Pick<LearntName, 'endpoint' | 'address'>, value: NameValue): LearntName {
  const now = process.hrtime.bigint();
  const patterns = value.patterns.flatMap((number, i) => {
    const expires = value.expiresNs[i] ?? 0n;
    return number !== 0 && expires >= now ? [{ number, expiresAt: unixTime(expires) }] : [];
  });
  return { ...key, name: value.name, patterns, learntAt: unixTime(value.learntNs) };
}
