import { type IpAddress, ipFromBytes, ipToBytes } from '../model/address.ts';
import type { PodRef } from '../model/endpoint.ts';
import { MyelinError } from '../model/error.ts';
import { type Prefix, prefixContains, prefixParts } from '../model/prefix.ts';

export type IpamErrorCode =
  /** No address is free; some may be soon. */
  | 'Exhausted'
  /** A node CIDR with too few addresses, or two of one family. */
  | 'InvalidCidr'
  /** The books name two owners for one address. */
  | 'Inconsistent';

export class IpamError extends MyelinError<IpamErrorCode> {}

/** The addresses of one attachment: at most one of each family, IPv4 first, always given and taken together. */
export interface Lease {
  readonly addresses: readonly IpAddress[];
  /** Who has them, or had them last: an attachment's key. */
  readonly owner: string;
  /** The pod of that attachment, which gets them back. */
  readonly pod?: PodRef;
  /** Unix milliseconds; absent while the owner has them. */
  readonly releasedAt?: number;
}

export interface IpamOptions {
  /** The node's own CIDRs, at most one of each family. */
  readonly cidrs: readonly Prefix[];
  /** How long nobody but the pod that had an address gets it, so that no peer still takes it for that pod's. */
  readonly coolDownMs: number;
}

export interface IpamUsage {
  /** How many attachments the node's CIDRs have room for. */
  readonly size: number;
  readonly inUse: number;
  readonly coolingDown: number;
  /** Until the first of those is free; 0 where none cools down. */
  readonly nextFreeMs: number;
}

/** The network's own address, and .1, which stays the node's in case it needs a foot in its pods' network. */
const firstSlot = 2;
/** An IPv6-only node could count on; no node runs more pods, and numbers of 16 bits keep the arithmetic plain. */
const lastSlotEver = 65_534;

/**
 * The books of a node's pod addresses. Pure: no I/O and no clock; the caller stores {@link leases} before it tells
 * anybody of an address.
 *
 * An address is a slot: the same number in the IPv4 and in the IPv6 CIDR. A slot was never given, or it has an owner, or
 * it is released; released slots remember their pod. A pod that comes back gets the slot it had last; everybody else gets
 * one that was never given, lowest first, or the one released longest ago, if that has cooled down.
 */
export class Ipam {
  /** IPv4 before IPv6. */
  readonly #cidrs: readonly Prefix[];
  readonly #coolDownMs: number;
  readonly #lastSlot: number;
  /** By slot. */
  readonly #leases = new Map<number, Lease>();
  /** Leases of other CIDRs that the node had before; they end with their owners. */
  readonly #foreign = new Map<string, Lease>();
  readonly #slotOfOwner = new Map<string, number>();

  /**
   * @param leases What {@link leases} gave before a restart.
   * @param now Unix milliseconds. A release in the future (the clock was set back) counts as of now.
   * @throws {IpamError} `InvalidCidr`, `Inconsistent`
   */
  constructor(options: IpamOptions, leases: readonly Lease[], now: number) {
    this.#cidrs = options.cidrs.toSorted((a, b) => prefixParts(a).family - prefixParts(b).family);
    this.#coolDownMs = options.coolDownMs;
    this.#lastSlot = lastSlotOf(options.cidrs);
    for (const lease of leases)
      this.#restore(lease.releasedAt === undefined ? lease : { ...lease, releasedAt: Math.min(lease.releasedAt, now) });
  }

  /** Everything that must survive a restart, as plain data. */
  get leases(): Lease[] {
    return [...this.#leases.values(), ...this.#foreign.values()];
  }

  /**
   * @param owner The attachment's key; asking again gives the same addresses.
   * @param pod Who gets its last addresses back; absent for a container that is no pod.
   * @throws {IpamError} `Exhausted`
   */
  allocate(owner: string, pod: PodRef | undefined, now: number): readonly IpAddress[] {
    const held = this.addressesOf(owner);
    if (held !== undefined) return held;
    const slot = this.#stickySlot(pod) ?? this.#newSlot() ?? this.#cooledSlot(now);
    if (slot === undefined) throw this.#exhausted(now);
    const addresses = this.#addressesAt(slot);
    this.#leases.set(slot, { addresses, owner, ...(pod !== undefined && { pod }) });
    this.#slotOfOwner.set(owner, slot);
    return addresses;
  }

  /** @returns Whether the owner had any. The addresses cool down from `now` on. */
  release(owner: string, now: number): boolean {
    if (this.#foreign.delete(owner)) return true;
    const slot = this.#slotOfOwner.get(owner);
    const lease = slot === undefined ? undefined : this.#leases.get(slot);
    if (slot === undefined || lease === undefined) return false;
    // Put at the end: of two released in the same millisecond, the later one is the later one.
    this.#leases.delete(slot);
    this.#leases.set(slot, { ...lease, releasedAt: now });
    this.#slotOfOwner.delete(owner);
    return true;
  }

  addressesOf(owner: string): readonly IpAddress[] | undefined {
    const slot = this.#slotOfOwner.get(owner);
    return (slot === undefined ? this.#foreign.get(owner) : this.#leases.get(slot))?.addresses;
  }

  /** Who has addresses now. */
  get owners(): string[] {
    return [...this.#slotOfOwner.keys(), ...this.#foreign.keys()];
  }

  usage(now: number): IpamUsage {
    const waits = [...this.#leases.values()].map((lease) => this.#waitOf(lease, now)).filter((wait) => wait > 0);
    return {
      size: this.#lastSlot - firstSlot + 1,
      inUse: this.#slotOfOwner.size,
      coolingDown: waits.length,
      nextFreeMs: waits.length === 0 ? 0 : Math.min(...waits),
    };
  }

  /** Whether an attachment of a new pod would get an address now; the message of the refusal if not. */
  exhaustion(now: number): string | undefined {
    return (this.#newSlot() ?? this.#cooledSlot(now)) === undefined ? this.#exhausted(now).message : undefined;
  }

  #restore(lease: Lease): void {
    const slot = this.#slotOf(lease);
    if (slot === undefined) {
      if (lease.releasedAt === undefined) this.#foreign.set(lease.owner, lease);
      return;
    }
    const clash =
      this.#leases.has(slot) || (lease.releasedAt === undefined && this.addressesOf(lease.owner) !== undefined);
    if (clash) throw new IpamError('Inconsistent', `${lease.addresses.join(' and ')} stand twice in the books`);
    this.#leases.set(slot, lease);
    if (lease.releasedAt === undefined) this.#slotOfOwner.set(lease.owner, slot);
  }

  /** Undefined where the addresses are not, both together, a slot of the present CIDRs. */
  #slotOf({ addresses }: Lease): number | undefined {
    const [first] = addresses;
    const [cidr] = this.#cidrs;
    if (first === undefined || cidr === undefined || !prefixContains(cidr, first)) return undefined;
    const slot = ipToBytes(first)
      .subarray(-2)
      .reduce((number, byte) => (number << 8) | byte, 0);
    const offset = slot - lowBits(cidr);
    const same = this.#addressesAt(offset).join() === addresses.join();
    return same && offset >= firstSlot && offset <= this.#lastSlot ? offset : undefined;
  }

  #addressesAt(slot: number): readonly IpAddress[] {
    return this.#cidrs.map((cidr) => {
      const bytes = Uint8Array.from(ipToBytes(prefixParts(cidr).address));
      const low = lowBits(cidr) + slot;
      bytes.set([low >> 8, low & 0xff], bytes.length - 2);
      return ipFromBytes(bytes);
    });
  }

  #stickySlot(pod: PodRef | undefined): number | undefined {
    if (pod === undefined) return undefined;
    let best: { slot: number; releasedAt: number } | undefined;
    for (const [slot, lease] of this.#leases) {
      if (lease.releasedAt === undefined || !samePod(lease.pod, pod) || this.#isForeign(slot)) continue;
      if (best === undefined || lease.releasedAt >= best.releasedAt) best = { slot, releasedAt: lease.releasedAt };
    }
    return best?.slot;
  }

  #newSlot(): number | undefined {
    for (let slot = firstSlot; slot <= this.#lastSlot; slot++)
      if (!this.#leases.has(slot) && !this.#isForeign(slot)) return slot;
    return undefined;
  }

  #cooledSlot(now: number): number | undefined {
    let oldest: { slot: number; releasedAt: number } | undefined;
    for (const [slot, lease] of this.#leases) {
      if (lease.releasedAt === undefined || this.#waitOf(lease, now) > 0 || this.#isForeign(slot)) continue;
      if (oldest === undefined || lease.releasedAt < oldest.releasedAt) oldest = { slot, releasedAt: lease.releasedAt };
    }
    return oldest?.slot;
  }

  /** Whether a lease of earlier CIDRs shares one of the slot's addresses (a node that became dual-stack). */
  #isForeign(slot: number): boolean {
    if (this.#foreign.size === 0) return false;
    const addresses = this.#addressesAt(slot);
    return [...this.#foreign.values()].some((lease) => lease.addresses.some((ip) => addresses.includes(ip)));
  }

  /** Milliseconds of cool-down left; never more than the whole of it. */
  #waitOf({ releasedAt }: Lease, now: number): number {
    if (releasedAt === undefined) return 0;
    return Math.min(this.#coolDownMs, releasedAt + this.#coolDownMs - now);
  }

  #exhausted(now: number): IpamError {
    const { inUse, coolingDown, nextFreeMs } = this.usage(now);
    const cidrs = this.#cidrs.join(' and ');
    const cooling =
      coolingDown === 0 ? '' : `, ${coolingDown} cooling down for another ${Math.ceil(nextFreeMs / 1000)} s`;
    return new IpamError('Exhausted', `node CIDR ${cidrs} has no free address: ${inUse} in use${cooling}`);
  }
}

function samePod(a: PodRef | undefined, b: PodRef): boolean {
  return a !== undefined && a.uid === b.uid && a.name === b.name && a.namespace === b.namespace;
}

function lowBits(cidr: Prefix): number {
  const bytes = ipToBytes(prefixParts(cidr).address);
  return ((bytes.at(-2) ?? 0) << 8) | (bytes.at(-1) ?? 0);
}

/** @throws {IpamError} `InvalidCidr` */
function lastSlotOf(cidrs: readonly Prefix[]): number {
  const families = cidrs.map((cidr) => prefixParts(cidr).family);
  if (families.length === 0 || families.length > 2 || new Set(families).size !== families.length)
    throw new IpamError('InvalidCidr', `a node has one CIDR of each family at most, not ${cidrs.join(', ') || 'none'}`);
  const last = cidrs.map((cidr) => {
    const { family, length } = prefixParts(cidr);
    const bits = (family === 4 ? 32 : 128) - length;
    // The last IPv4 address is the broadcast address; IPv6 has none.
    const slot = bits >= 16 ? lastSlotEver : 2 ** bits - (family === 4 ? 2 : 1);
    if (slot < firstSlot) throw new IpamError('InvalidCidr', `${cidr} has no room for a pod`);
    return slot;
  });
  return Math.min(...last);
}
