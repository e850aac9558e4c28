import { type Family, type IpAddress, ipFromBytes, ipToBytes } from '../../model/address.ts';
import { type Prefix, prefixContains, prefixParts } from '../../model/prefix.ts';

const nodePorts = { from: 30000, to: 32767 };

/**
 * Picks the addresses and node ports of Services. It keeps no list of what is taken: the caller reads that from the
 * store, so nothing can leak. Picks go round the range, so that a released address is not given to the next Service.
 */
export class ServiceAddresses {
  readonly #ranges: readonly Prefix[];
  readonly #next = new Map<Family, bigint>();
  #nextPort = nodePorts.from;

  /** @param ranges One or two prefixes; the first is the family of Services that name none. */
  constructor(ranges: readonly Prefix[]) {
    this.#ranges = ranges;
  }

  /** The families there are addresses of, the preferred one first. */
  get families(): readonly Family[] {
    return this.#ranges.map((range) => prefixParts(range).family);
  }

  contains(ip: IpAddress): boolean {
    return this.#ranges.some((range) => prefixContains(range, ip));
  }

  rangeOf(family: Family): Prefix | undefined {
    return this.#ranges.find((range) => prefixParts(range).family === family);
  }

  /** @returns A free address, or undefined where the family has no range, or a full one. */
  allocate(family: Family, taken: ReadonlySet<string>): IpAddress | undefined {
    const range = this.rangeOf(family);
    if (range === undefined) return undefined;
    const { address, length } = prefixParts(range);
    const bytes = ipToBytes(address);
    const size = 1n << BigInt(8 * bytes.length - length);
    // The lower part is left to Services that ask for their address (Kubernetes reserves 16 to 256 there as well).
    const band = size <= 32n ? 1n : size / 16n > 256n ? 256n : size / 16n < 16n ? 16n : size / 16n;
    const last = family === 4 ? size - 2n : size - 1n;
    const count = last - band + 1n;
    if (count <= 0n) return undefined;
    let offset = this.#next.get(family) ?? 0n;
    for (let tries = 0n; tries < count && tries <= BigInt(taken.size); tries++, offset++) {
      const ip = plus(bytes, band + (offset % count));
      if (taken.has(ip)) continue;
      this.#next.set(family, (offset + 1n) % count);
      return ip;
    }
    return undefined;
  }

  /** @returns A free node port, or undefined where all are taken. */
  allocateNodePort(taken: ReadonlySet<number>): number | undefined {
    const count = nodePorts.to - nodePorts.from + 1;
    for (let i = 0; i < count; i++) {
      const port = nodePorts.from + ((this.#nextPort - nodePorts.from + i) % count);
      if (taken.has(port)) continue;
      this.#nextPort = port + 1;
      return port;
    }
    return undefined;
  }

  isNodePort(port: number): boolean {
    return port >= nodePorts.from && port <= nodePorts.to;
  }
}

function plus(base: Uint8Array, offset: bigint): IpAddress {
  const bytes = Uint8Array.from(base);
  let rest = offset;
  for (let i = bytes.length - 1; i >= 0 && rest > 0n; i--) {
    rest += BigInt(bytes[i] ?? 0);
    bytes[i] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  return ipFromBytes(bytes);
}
