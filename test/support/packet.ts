import {
  familyOf,
  type IpAddress,
  ipToBytes,
  type MacAddress,
  macToBytes,
  parseIp,
  parseMac,
} from '../../src/model/address.ts';
import { protocolNumbers } from '../../src/model/port.ts';
import { crc32c, internetChecksum } from './checksum.ts';

/**
 * Packets for tests, from the Ethernet header on, with true checksums unless told otherwise. A packet is made from the
 * inside out: `frame(ends, ip({ source, destination }, tcp({ … })))`.
 */

/** What an IP packet carries; its checksum may depend on the addresses. */
export interface Transport {
  readonly protocol: number;
  bytes(source: IpAddress, destination: IpAddress): Uint8Array;
}

export const etherTypes = { ipv4: 0x0800, arp: 0x0806, vlan: 0x8100, ipv6: 0x86dd, qinq: 0x88a8 } as const;

export interface FrameEnds {
  readonly source: MacAddress;
  readonly destination: MacAddress;
  /** Puts an 802.1Q tag with this number before the packet. */
  readonly vlan?: number;
}

/** An Ethernet frame. `etherType` is guessed from the packet's first half byte where it is not given. */
export function frame(ends: FrameEnds, packet: Uint8Array, etherType = etherTypeOf(packet)): Uint8Array {
  const tag = ends.vlan === undefined ? [] : [u16(etherTypes.vlan), u16(ends.vlan)];
  return concat(macToBytes(ends.destination), macToBytes(ends.source), ...tag, u16(etherType), packet);
}

function etherTypeOf(packet: Uint8Array): number {
  return (packet[0] ?? 0) >> 4 === 6 ? etherTypes.ipv6 : etherTypes.ipv4;
}

export interface IpOptions {
  readonly source: IpAddress;
  readonly destination: IpAddress;
  /** Time to live or hop limit; 64 by default. */
  readonly ttl?: number;
  /** IPv4: the identification. */
  readonly id?: number;
  readonly dontFragment?: boolean;
  /** IPv4 options, padded to a multiple of four bytes here. */
  readonly options?: Uint8Array;
  /** IPv6 extension headers, each without its next-header byte, in their order. */
  readonly extensions?: readonly Extension[];
}

export interface Extension {
  readonly protocol: number;
  /** From its second byte on. */
  readonly rest: Uint8Array;
}

/** An IPv4 or IPv6 packet, by the family of its source. */
export function ip(options: IpOptions, transport: Transport): Uint8Array {
  const payload = transport.bytes(options.source, options.destination);
  return rawIp(options, transport.protocol, payload);
}

/** An IP packet around bytes of any kind. */
export function rawIp(options: IpOptions, protocol: number, payload: Uint8Array): Uint8Array {
  const { source, destination, ttl = 64 } = options;
  if (familyOf(source) === 6) {
    const extensions = options.extensions ?? [];
    const next = (i: number) => extensions[i]?.protocol ?? protocol;
    const chain = extensions.map(({ rest }, i) => concat(Uint8Array.of(next(i + 1)), rest));
    const body = concat(...chain, payload);
    return concat(
      Uint8Array.of(0x60, 0, 0, 0),
      u16(body.length),
      Uint8Array.of(next(0), ttl),
      ipToBytes(source),
      ipToBytes(destination),
      body,
    );
  }
  const given = options.options ?? new Uint8Array();
  const ipOptions = concat(given, new Uint8Array((4 - (given.length % 4)) % 4));
  const header = concat(
    Uint8Array.of(0x40 | ((20 + ipOptions.length) / 4), 0),
    u16(20 + ipOptions.length + payload.length),
    u16(options.id ?? 0),
    u16(options.dontFragment ? 0x4000 : 0),
    Uint8Array.of(ttl, protocol, 0, 0),
    ipToBytes(source),
    ipToBytes(destination),
    ipOptions,
  );
  header.set(u16(internetChecksum(header)), 10);
  return concat(header, payload);
}

export interface PortOptions {
  readonly source: number;
  readonly destination: number;
  readonly payload?: Uint8Array;
}

const tcpFlagBits = { F: 1, S: 2, R: 4, P: 8, A: 16, U: 32 } as const;

/** @param options.flags Letters as tcpdump shows them: `S`, `SA`, `PA`, `F`, `R`, or '' for none. */
export function tcp(options: PortOptions & { flags?: string; seq?: number; ack?: number }): Transport {
  const { source, destination, flags = 'S', seq = 1, ack = 0, payload = new Uint8Array() } = options;
  let bits = 0;
  for (const [letter, bit] of Object.entries(tcpFlagBits)) if (flags.includes(letter)) bits |= bit;
  const segment = concat(
    u16(source),
    u16(destination),
    u32(seq),
    u32(ack),
    Uint8Array.of(0x50, bits),
    u16(0xffff),
    u16(0),
    u16(0),
    payload,
  );
  return checksummed(protocolNumbers.TCP, segment, 16);
}

/** @param options.checksum `none` leaves the checksum zero, as IPv4 allows. */
export function udp(options: PortOptions & { checksum?: 'none' }): Transport {
  const { source, destination, payload = new Uint8Array() } = options;
  const datagram = concat(u16(source), u16(destination), u16(8 + payload.length), u16(0), payload);
  if (options.checksum === 'none') return { protocol: protocolNumbers.UDP, bytes: () => datagram };
  return checksummed(protocolNumbers.UDP, datagram, 6);
}

export const sctpChunks = { data: 0, init: 1, abort: 6, shutdownComplete: 14 } as const;

/** @param options.checksum `offloaded` leaves it zero, as a kernel does whose device fills it in. */
export function sctp(options: PortOptions & { chunk?: number; checksum?: 'offloaded' }): Transport {
  const { source, destination, chunk = sctpChunks.init, payload = new Uint8Array(16) } = options;
  const packet = concat(
    u16(source),
    u16(destination),
    u32(0),
    u32(0),
    Uint8Array.of(chunk, 0),
    u16(4 + payload.length),
    payload,
  );
  if (options.checksum !== 'offloaded') new DataView(packet.buffer).setUint32(8, crc32c(packet), true);
  return { protocol: protocolNumbers.SCTP, bytes: () => packet };
}

/** An ICMP echo request or reply of either family. */
export function ping(options: {
  id: number;
  seq?: number;
  reply?: boolean;
  family?: 4 | 6;
  payload?: Uint8Array;
}): Transport {
  const { id, seq = 1, reply = false, family = 4, payload = new Uint8Array(32) } = options;
  const type = family === 4 ? (reply ? 0 : 8) : reply ? 129 : 128;
  return icmp({ family, type, code: 0, rest: concat(u16(id), u16(seq)), payload });
}

/** ICMP or ICMPv6 of any type. `rest` is the header's second word. */
export function icmp(options: {
  family: 4 | 6;
  type: number;
  code?: number;
  rest?: Uint8Array;
  payload?: Uint8Array;
}): Transport {
  const { family, type, code = 0, rest = new Uint8Array(4), payload = new Uint8Array() } = options;
  const message = concat(Uint8Array.of(type, code, 0, 0), rest, payload);
  if (family === 6) return checksummed(protocolNumbers.ICMPv6, message, 2);
  message.set(u16(internetChecksum(message)), 2);
  return { protocol: protocolNumbers.ICMP, bytes: () => message };
}

/** An ICMP error of either family that quotes the start of an IP packet. */
export function icmpError(
  quoted: Uint8Array,
  options: { type: number; code?: number; rest?: Uint8Array; quotedBytes?: number },
): Transport {
  const family = (quoted[0] ?? 0) >> 4 === 6 ? 6 : 4;
  const { type, code = 0, rest = new Uint8Array(4), quotedBytes = family === 4 ? 28 : 1232 } = options;
  return icmp({ family, type, code, rest, payload: quoted.slice(0, quotedBytes) });
}

/** A protocol of any number. */
export function other(protocol: number, payload: Uint8Array = new Uint8Array(8)): Transport {
  return { protocol, bytes: () => payload };
}

/** An ARP message for Ethernet and IPv4, without the Ethernet header. */
export function arp(options: {
  operation: 'request' | 'reply';
  senderMac: MacAddress;
  senderIp: IpAddress;
  targetMac?: MacAddress;
  targetIp: IpAddress;
}): Uint8Array {
  return concat(
    u16(1),
    u16(etherTypes.ipv4),
    Uint8Array.of(6, 4),
    u16(options.operation === 'request' ? 1 : 2),
    macToBytes(options.senderMac),
    ipToBytes(options.senderIp),
    macToBytes(options.targetMac ?? parseMac('00:00:00:00:00:00')),
    ipToBytes(options.targetIp),
  );
}

export const neighbourTypes = { routerSolicit: 133, routerAdvertise: 134, solicit: 135, advertise: 136 } as const;

/** A neighbour-discovery message; `linkAddress` becomes the option that goes with its type. */
export function neighbour(options: {
  type: keyof typeof neighbourTypes;
  target?: IpAddress;
  linkAddress?: MacAddress;
}): Transport {
  const type = neighbourTypes[options.type];
  const target = options.target === undefined ? new Uint8Array() : ipToBytes(options.target);
  const option =
    options.linkAddress === undefined
      ? new Uint8Array()
      : concat(Uint8Array.of(options.type === 'advertise' ? 2 : 1, 1), macToBytes(options.linkAddress));
  const rest = type === neighbourTypes.advertise ? Uint8Array.of(0x60, 0, 0, 0) : new Uint8Array(4);
  return icmp({ family: 6, type, rest, payload: concat(target, option) });
}

/**
 * Cuts an IP packet into fragments.
 * @param size Bytes of payload in every fragment but the last; a multiple of 8.
 */
export function fragmentsOf(packet: Uint8Array, size: number, id = 0x4242): Uint8Array[] {
  if ((packet[0] ?? 0) >> 4 === 6) return fragmentsOfIpv6(packet, size, id);
  const headerLength = ((packet[0] ?? 0) & 0xf) * 4;
  return cut(packet.subarray(headerLength), size).map(({ bytes, offset, more }) => {
    const header = packet.slice(0, headerLength);
    header.set(u16(headerLength + bytes.length), 2);
    header.set(u16(id), 4);
    header.set(u16((more ? 0x2000 : 0) | (offset / 8)), 6);
    header.set(u16(0), 10);
    header.set(u16(internetChecksum(header)), 10);
    return concat(header, bytes);
  });
}

function fragmentsOfIpv6(packet: Uint8Array, size: number, id: number): Uint8Array[] {
  const next = packet[6] ?? 0;
  return cut(packet.subarray(40), size).map(({ bytes, offset, more }) => {
    const header = packet.slice(0, 40);
    header.set(u16(8 + bytes.length), 4);
    header[6] = 44;
    return concat(header, Uint8Array.of(next, 0), u16(offset | (more ? 1 : 0)), u32(id), bytes);
  });
}

function cut(payload: Uint8Array, size: number): { bytes: Uint8Array; offset: number; more: boolean }[] {
  const parts = [];
  for (let offset = 0; offset < payload.length; offset += size)
    parts.push({ bytes: payload.subarray(offset, offset + size), offset, more: offset + size < payload.length });
  return parts;
}

/** The bytes over which TCP, UDP and ICMPv6 also compute their checksum (RFC 793, RFC 8200 section 8.1). */
export function pseudoHeader(source: IpAddress, destination: IpAddress, protocol: number, length: number): Uint8Array {
  return concat(ipToBytes(source), ipToBytes(destination), u32(length), u32(protocol));
}

function checksummed(protocol: number, segment: Uint8Array, at: number): Transport {
  return {
    protocol,
    bytes: (source, destination) => {
      const bytes = segment.slice();
      const sum = internetChecksum(pseudoHeader(source, destination, protocol, bytes.length), bytes);
      // UDP's zero means "none": a sum of zero is sent as its other form (RFC 768).
      bytes.set(u16(sum === 0 && protocol === protocolNumbers.UDP ? 0xffff : sum), at);
      return bytes;
    },
  };
}

/** The multicast address at which a neighbour listens for solicitations of `address` (RFC 4291 section 2.7.1). */
export function solicitedNode(address: IpAddress): IpAddress {
  const [a = 0, b = 0, c = 0] = ipToBytes(address).slice(13);
  const hex = (...bytes: number[]) => bytes.map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return parseIp(`ff02::1:ff${hex(a)}:${hex(b, c)}`);
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

export function u16(value: number): Uint8Array {
  return Uint8Array.of(value >> 8, value & 0xff);
}

export function u32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff);
}
