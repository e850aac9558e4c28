import { isIPv4, isIPv6 } from 'node:net';
import { MyelinError } from './error.ts';

/** An IP address in canonical text: dotted quad, or RFC 5952. Equal addresses are equal strings. */
export type IpAddress = string & { readonly ipAddress: unique symbol };
/** An Ethernet address in lower-case colon notation. */
export type MacAddress = string & { readonly macAddress: unique symbol };
export type Family = 4 | 6;

const mappedPrefix = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff);

/** @returns The canonical address, or undefined where `text` is not one. An IPv4-mapped IPv6 text becomes the IPv4 address. */
export function tryParseIp(text: string): IpAddress | undefined {
  if (isIPv4(text)) return text as IpAddress;
  if (!isIPv6(text) || text.includes('%')) return undefined;
  return ipFromBytes(parseIpv6(text));
}

/** @throws {MyelinError} `InvalidAddress` */
export function parseIp(text: string): IpAddress {
  const ip = tryParseIp(text);
  if (ip === undefined) throw new MyelinError('InvalidAddress', `${JSON.stringify(text)} is not an IP address`);
  return ip;
}

export function familyOf(ip: IpAddress): Family {
  return ip.includes(':') ? 6 : 4;
}

/** @returns 16 bytes, network order; an IPv4 address as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2), as all map keys hold it. */
export function ipToBytes16(ip: IpAddress): Uint8Array {
  if (familyOf(ip) === 6) return parseIpv6(ip);
  const bytes = new Uint8Array(16);
  bytes.set(mappedPrefix);
  bytes.set(ip.split('.').map(Number), 12);
  return bytes;
}

/** @returns 4 or 16 bytes, network order, as they stand on the wire. */
export function ipToBytes(ip: IpAddress): Uint8Array {
  const bytes = ipToBytes16(ip);
  return familyOf(ip) === 4 ? bytes.subarray(12) : bytes;
}

/** @param bytes 4 or 16 bytes, network order; an IPv4-mapped address comes back as IPv4. */
export function ipFromBytes(bytes: Uint8Array): IpAddress {
  if (bytes.length === 4) return bytes.join('.') as IpAddress;
  if (bytes.length !== 16) throw new MyelinError('InvalidAddress', `an address has 4 or 16 bytes, not ${bytes.length}`);
  if (mappedPrefix.every((b, i) => bytes[i] === b)) return bytes.subarray(12).join('.') as IpAddress;
  return formatIpv6(bytes);
}

/** @throws {MyelinError} `InvalidAddress` */
export function parseMac(text: string): MacAddress {
  if (!/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(text))
    throw new MyelinError('InvalidAddress', `${JSON.stringify(text)} is not an Ethernet address`);
  return text.toLowerCase() as MacAddress;
}

/** @returns 6 bytes. */
export function macToBytes(mac: MacAddress): Uint8Array {
  return Uint8Array.from(mac.split(':'), (part) => Number.parseInt(part, 16));
}

export function macFromBytes(bytes: Uint8Array): MacAddress {
  return Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join(':') as MacAddress;
}

function parseIpv6(text: string): Uint8Array {
  let source = text;
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(source);
  if (dotted?.[1] !== undefined && dotted[2] !== undefined) {
    const quad = dotted[2].split('.').map(Number);
    const word = (i: number) => (((quad[i] ?? 0) << 8) | (quad[i + 1] ?? 0)).toString(16);
    source = `${dotted[1]}${word(0)}:${word(2)}`;
  }
  const [head = '', tail] = source.split('::');
  const words = (part: string) => (part === '' ? [] : part.split(':').map((w) => Number.parseInt(w, 16)));
  const left = words(head);
  const right = tail === undefined ? [] : words(tail);
  const all = [...left, ...new Array<number>(8 - left.length - right.length).fill(0), ...right];
  return Uint8Array.from(all.flatMap((w) => [w >> 8, w & 0xff]));
}

function formatIpv6(bytes: Uint8Array): IpAddress {
  const words = Array.from({ length: 8 }, (_, i) => ((bytes[2 * i] ?? 0) << 8) | (bytes[2 * i + 1] ?? 0));
  // RFC 5952 section 4.2: the longest run of two or more zero words, the first of equals, becomes "::".
  let best = { start: -1, length: 1 };
  for (let start = 0; start < 8; start++) {
    let length = 0;
    while (start + length < 8 && words[start + length] === 0) length++;
    if (length > best.length) best = { start, length };
  }
  const hex = words.map((w) => w.toString(16));
  if (best.start < 0) return hex.join(':') as IpAddress;
  return `${hex.slice(0, best.start).join(':')}::${hex.slice(best.start + best.length).join(':')}` as IpAddress;
}
