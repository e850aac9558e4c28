import { familyOf, type IpAddress, ipToBytes, type MacAddress, macToBytes } from '../../model/address.ts';

/** A UDP datagram on Ethernet, IPv4 or IPv6 by its addresses, with right checksums: what the attacks are made of. */
export function udpFrame(frame: {
  readonly sourceMac: MacAddress;
  readonly destinationMac: MacAddress;
  readonly source: IpAddress;
  readonly destination: IpAddress;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly payload: Uint8Array;
}): Buffer {
  const udp = Buffer.alloc(8);
  udp.writeUInt16BE(frame.sourcePort, 0);
  udp.writeUInt16BE(frame.destinationPort, 2);
  udp.writeUInt16BE(8 + frame.payload.length, 4);
  const source = ipToBytes(frame.source);
  const destination = ipToBytes(frame.destination);
  // RFC 768: the pseudo-header is both addresses, the protocol and the length; RFC 8200 section 8.1 for IPv6.
  const pseudo = Buffer.from([0, 17, (8 + frame.payload.length) >> 8, (8 + frame.payload.length) & 0xff]);
  const sum = checksum(Buffer.concat([source, destination, pseudo, udp, frame.payload]));
  udp.writeUInt16BE(sum === 0 ? 0xffff : sum, 6);
  const payload = Buffer.concat([udp, frame.payload]);
  const v4 = familyOf(frame.source) === 4;
  const header = v4 ? ipv4Header(source, destination, payload.length) : ipv6Header(source, destination, payload.length);
  const ethernet = Buffer.concat([
    macToBytes(frame.destinationMac),
    macToBytes(frame.sourceMac),
    Buffer.from(v4 ? [0x08, 0x00] : [0x86, 0xdd]),
  ]);
  return Buffer.concat([ethernet, header, payload]);
}

function ipv4Header(source: Uint8Array, destination: Uint8Array, payload: number): Buffer {
  const header = Buffer.alloc(20);
  header.writeUInt8(0x45, 0);
  header.writeUInt16BE(20 + payload, 2);
  header.writeUInt8(64, 8);
  header.writeUInt8(17, 9);
  header.set(source, 12);
  header.set(destination, 16);
  header.writeUInt16BE(checksum(header), 10);
  return header;
}

function ipv6Header(source: Uint8Array, destination: Uint8Array, payload: number): Buffer {
  const header = Buffer.alloc(40);
  header.writeUInt8(0x60, 0);
  header.writeUInt16BE(payload, 4);
  header.writeUInt8(17, 6);
  header.writeUInt8(64, 7);
  header.set(source, 8);
  header.set(destination, 24);
  return header;
}

/** RFC 1071, over bytes whose checksum field is zero. */
function checksum(bytes: Buffer): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += ((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
