import { type IpAddress, ipToBytes16, parseIp } from '../../model/address.ts';
import { type IdentityNumber, reservedIdentity } from '../../model/identity.ts';
import { hostPrefix, type Prefix, parsePrefix, prefixParts, prefixWithin } from '../../model/prefix.ts';
import type { PrefixEntry } from '../image.ts';
import type { PolicySettings } from '../view.ts';

/** All of IPv4, which the maps hold as ::ffff:0:0/96. */
const allIpv4 = parsePrefix('0.0.0.0/0');

/** Those regions in which an address can be the world's: the cluster's own CIDRs have no strangers in them. */
export function worldRegions(
  regions: readonly Prefix[],
  { podCidrs = [], serviceCidrs = [] }: PolicySettings,
): Prefix[] {
  const own = [...podCidrs, ...serviceCidrs];
  return regions.filter((region) => !own.some((cidr) => prefixWithin(region, cidr)));
}

/**
 * The map of prefixes: the cluster's own CIDRs and the world's regions.
 * @param contested Addresses that more than one pod or node claims.
 */
export function prefixTable(
  { podCidrs = [], serviceCidrs = [] }: PolicySettings,
  world: ReadonlyMap<Prefix, IdentityNumber>,
  contested: readonly IpAddress[],
): Map<Prefix, PrefixEntry> {
  const table = new Map<Prefix, PrefixEntry>();
  for (const [prefix, identity] of world) table.set(prefix, { identity, kind: 'world' });
  for (const prefix of serviceCidrs) table.set(prefix, { identity: reservedIdentity.any, kind: 'unknown-service' });
  for (const prefix of [...podCidrs, ...contested.map(hostPrefix)])
    table.set(prefix, { identity: reservedIdentity.any, kind: 'unknown-pod' });
  // In the map's one space of 128 bits, an IPv6 prefix such as ::/0 holds every IPv4 address too. It must not match them.
  if (!table.has(allIpv4) && [...table.keys()].some(holdsMappedAddresses))
    table.set(allIpv4, { identity: reservedIdentity.world, kind: 'world' });
  return table;
}

function holdsMappedAddresses(prefix: Prefix): boolean {
  const { address, length, family } = prefixParts(prefix);
  if (family === 4 || length > 96) return false;
  const mapped = ipToBytes16(parseIp('0.0.0.0'));
  return ipToBytes16(address).every((byte, i) => {
    const mask = 0xff & (0xff << (8 - Math.max(0, Math.min(8, length - 8 * i))));
    return byte === ((mapped[i] ?? 0) & mask);
  });
}
