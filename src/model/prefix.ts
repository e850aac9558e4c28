import { type Family, familyOf, type IpAddress, ipFromBytes, ipToBytes, tryParseIp } from './address.ts';
import { MyelinError } from './error.ts';

/** A CIDR prefix in canonical text with the host bits cleared: `10.0.0.0/8`, `fd00::/48`. Equal prefixes are equal strings. */
export type Prefix = string & { readonly prefix: unique symbol };

/**
 * Host bits may be set and are cleared. An IPv4-mapped IPv6 prefix is the IPv4 prefix that it maps.
 * @throws {MyelinError} `InvalidPrefix`
 */
export function parsePrefix(text: string): Prefix {
  const [address = '', digits = '', rest] = text.split('/');
  const ip = tryParseIp(address);
  const mapped = ip !== undefined && familyOf(ip) === 4 && address.includes(':');
  const length = Number(digits) - (mapped ? 96 : 0);
  if (ip === undefined || rest !== undefined || !/^\d{1,3}$/.test(digits) || !isLength(ip, length))
    throw new MyelinError(
      'InvalidPrefix',
      `${JSON.stringify(text)} is not a CIDR prefix such as 10.0.0.0/8 or fd00::/48`,
    );
  return prefixOf(ip, length);
}

/**
 * @param length In bits of the address's own family. Host bits are cleared.
 * @throws {MyelinError} `InvalidPrefix` where the family has no such length.
 */
export function prefixOf(ip: IpAddress, length: number): Prefix {
  if (!isLength(ip, length)) throw new MyelinError('InvalidPrefix', `${ip} has no prefix of ${length} bits`);
  const bytes = Uint8Array.from(ipToBytes(ip));
  for (let i = 0; i < bytes.length; i++) {
    const keep = Math.max(0, Math.min(8, length - 8 * i));
    bytes[i] = (bytes[i] ?? 0) & (0xff << (8 - keep));
  }
  return `${ipFromBytes(bytes)}/${length}` as Prefix;
}

function isLength(ip: IpAddress, length: number): boolean {
  return Number.isInteger(length) && length >= 0 && length <= (familyOf(ip) === 4 ? 32 : 128);
}

/** The prefix that holds this address only. */
export function hostPrefix(ip: IpAddress): Prefix {
  return prefixOf(ip, familyOf(ip) === 4 ? 32 : 128);
}

export function prefixParts(prefix: Prefix): { address: IpAddress; length: number; family: Family } {
  const slash = prefix.lastIndexOf('/');
  const address = prefix.slice(0, slash) as IpAddress;
  return { address, length: Number(prefix.slice(slash + 1)), family: familyOf(address) };
}

export function prefixContains(prefix: Prefix, ip: IpAddress): boolean {
  const { length, family } = prefixParts(prefix);
  return family === familyOf(ip) && prefixOf(ip, length) === prefix;
}

/** Whether every address of `inner` is one of `outer`. */
export function prefixWithin(inner: Prefix, outer: Prefix): boolean {
  const { address, length } = prefixParts(inner);
  return length >= prefixParts(outer).length && prefixContains(outer, address);
}
