import { type IpAddress, ipFromBytes, type MacAddress, macFromBytes } from '../../src/model/address.ts';
import { protocolNumbers } from '../../src/model/port.ts';
import { crc32c, internetChecksum } from './checksum.ts';
import { etherTypes, pseudoHeader } from './packet.ts';

/** Packets read back, with every checksum computed anew. */

export interface ReadIp {
  readonly family: 4 | 6;
  readonly source: IpAddress;
  readonly destination: IpAddress;
  readonly ttl: number;
  readonly protocol: number;
  /** Of the IPv4 header; true for IPv6, which has none. */
  readonly headerChecksumTrue: boolean;
  /** In bytes; 0 for a whole packet and for a first fragment. */
  readonly fragmentOffset: number;
  readonly moreFragments: boolean;
  /** Everything behind the IP headers. */
  readonly payload: Uint8Array;
  /** Absent for a later fragment. */
  readonly transport?: ReadTransport;
}

export interface ReadTransport {
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** `none` where UDP has none or SCTP's is left to a device, `partial` where the packet is not all here. */
  readonly checksum: 'true' | 'false' | 'none' | 'partial';
  /** As tcpdump shows them. */
  readonly tcpFlags?: string;
  readonly icmpType?: number;
  /** What an ICMP error quotes. */
  readonly quoted?: ReadIp;
}

export interface ReadFrame {
  readonly source: MacAddress;
  readonly destination: MacAddress;
  readonly etherType: number;
  /** Present for IP. */
  readonly ip?: ReadIp;
}

/** @throws {RangeError} where a header is cut off. */
export function readFrame(bytes: Uint8Array): ReadFrame {
  const etherType = word16(bytes, 12);
  const base = {
    destination: macFromBytes(bytes.subarray(0, 6)),
    source: macFromBytes(bytes.subarray(6, 12)),
    etherType,
  };
  if (etherType !== etherTypes.ipv4 && etherType !== etherTypes.ipv6) return base;
  return { ...base, ip: readIp(bytes.subarray(14)) };
}

/** @param partial Whether the packet may be cut off anywhere behind its first 8 bytes of payload, as in an ICMP error. */
export function readIp(bytes: Uint8Array, partial = false): ReadIp {
  return (bytes[0] ?? 0) >> 4 === 6 ? readIpv6(bytes, partial) : readIpv4(bytes, partial);
}

function readIpv4(bytes: Uint8Array, partial: boolean): ReadIp {
  const headerLength = ((bytes[0] ?? 0) & 0xf) * 4;
  const total = word16(bytes, 2);
  const fragment = word16(bytes, 6);
  return withTransport(
    {
      family: 4,
      source: ipFromBytes(bytes.subarray(12, 16)),
      destination: ipFromBytes(bytes.subarray(16, 20)),
      ttl: bytes[8] ?? 0,
      protocol: bytes[9] ?? 0,
      headerChecksumTrue: internetChecksum(bytes.subarray(0, headerLength)) === 0,
      fragmentOffset: (fragment & 0x1fff) * 8,
      moreFragments: (fragment & 0x2000) !== 0,
      payload: bytes.subarray(headerLength, total),
    },
    partial || bytes.length < total,
  );
}

function readIpv6(bytes: Uint8Array, partial: boolean): ReadIp {
  const total = 40 + word16(bytes, 4);
  let next = bytes[6] ?? 0;
  let at = 40;
  let fragment = 0;
  while ([0, 43, 44, 60].includes(next) && fragment >> 3 === 0) {
    if (next === 44) fragment = word16(bytes, at + 2);
    const length = next === 44 ? 8 : ((bytes[at + 1] ?? 0) + 1) * 8;
    next = bytes[at] ?? 0;
    at += length;
  }
  return withTransport(
    {
      family: 6,
      source: ipFromBytes(bytes.subarray(8, 24)),
      destination: ipFromBytes(bytes.subarray(24, 40)),
      ttl: bytes[7] ?? 0,
      protocol: next,
      headerChecksumTrue: true,
      fragmentOffset: fragment & 0xfff8,
      moreFragments: (fragment & 1) !== 0,
      payload: bytes.subarray(at, total),
    },
    partial || bytes.length < total,
  );
}

function withTransport(ip: Omit<ReadIp, 'transport'>, partial: boolean): ReadIp {
  if (ip.fragmentOffset !== 0) return ip;
  const transport = readTransport(ip, partial || ip.moreFragments);
  return transport === undefined ? ip : { ...ip, transport };
}

function readTransport(ip: Omit<ReadIp, 'transport'>, partial: boolean): ReadTransport | undefined {
  const { payload, protocol } = ip;
  const ports = { sourcePort: word16(payload, 0), destinationPort: word16(payload, 2) };
  const checksum = (ok: boolean) => (partial ? 'partial' : ok ? 'true' : 'false');
  const withPseudoHeader = () =>
    internetChecksum(pseudoHeader(ip.source, ip.destination, protocol, payload.length), payload) === 0;
  switch (protocol) {
    case protocolNumbers.TCP:
      return {
        ...ports,
        checksum: checksum(withPseudoHeader()),
        tcpFlags: payload.length < 14 ? '' : [...'FSRPAU'].filter((_, i) => ((payload[13] ?? 0) >> i) & 1).join(''),
      };
    case protocolNumbers.UDP:
      return { ...ports, checksum: word16(payload, 6) === 0 ? 'none' : checksum(withPseudoHeader()) };
    case protocolNumbers.SCTP: {
      if (partial) return { ...ports, checksum: 'partial' };
      const found = new DataView(payload.buffer, payload.byteOffset).getUint32(8, true);
      const blank = payload.slice();
      blank.fill(0, 8, 12);
      return { ...ports, checksum: found === 0 ? 'none' : checksum(found === crc32c(blank)) };
    }
    case protocolNumbers.ICMP:
    case protocolNumbers.ICMPv6: {
      const type = payload[0] ?? 0;
      const ok = protocol === protocolNumbers.ICMP ? internetChecksum(payload) === 0 : withPseudoHeader();
      const isError = protocol === protocolNumbers.ICMP ? [3, 11, 12].includes(type) : type >= 1 && type <= 4;
      return {
        sourcePort: 0,
        destinationPort: 0,
        icmpType: type,
        checksum: checksum(ok),
        ...(isError && !partial ? { quoted: readIp(payload.subarray(8), true) } : {}),
      };
    }
    default:
      return undefined;
  }
}

function word16(bytes: Uint8Array, at: number): number {
  if (at + 2 > bytes.length) throw new RangeError(`the packet ends before byte ${at + 2}`);
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
}
