import { type IpAddress, ipFromBytes } from '../../model/address.ts';
import { type Prefix, prefixContains } from '../../model/prefix.ts';

/** What one frame on the underlay is. `plaintext` is a pod's packet outside a tunnel: what must never be there. */
export type FrameKind =
  | 'ESP in UDP'
  | 'handshake (TLS)'
  | 'API (TLS)'
  | 'CA (TLS)'
  | 'ARP'
  | 'IPv6 neighbour discovery'
  | 'other'
  | 'plaintext';

export interface WirePorts {
  readonly esp: number;
  readonly handshake: number;
  readonly api: number;
  readonly controller: number;
}

export interface WireSummary {
  readonly frames: number;
  readonly bytes: number;
  readonly kinds: ReadonlyMap<FrameKind, { frames: number; bytes: number }>;
  /** Frames that hold the canary text that the pods kept sending to each other. */
  readonly canarySightings: number;
  /** A few frames of kind `other` or `plaintext`, in words. */
  readonly oddities: readonly string[];
}

/**
 * Sorts the frames of a capture.
 * @param capture A pcap file (magic a1b2c3d4, either byte order, micro- or nanoseconds), link type Ethernet.
 * @param options.pods The cluster's pod prefixes.
 * @param options.canary A text that only pods' payloads hold.
 */
export function summarizeCapture(
  capture: Buffer,
  options: { pods: readonly Prefix[]; ports: WirePorts; canary: string },
): WireSummary {
  const kinds = new Map<FrameKind, { frames: number; bytes: number }>();
  const canary = Buffer.from(options.canary);
  const oddities: string[] = [];
  let frames = 0;
  let bytes = 0;
  let canarySightings = 0;
  for (const frame of framesOf(capture)) {
    const { kind, text } = classify(frame, options.pods, options.ports);
    const tally = kinds.get(kind) ?? { frames: 0, bytes: 0 };
    tally.frames++;
    tally.bytes += frame.length;
    kinds.set(kind, tally);
    frames++;
    bytes += frame.length;
    if (frame.includes(canary)) canarySightings++;
    if ((kind === 'other' || kind === 'plaintext') && oddities.length < 8) oddities.push(text);
  }
  return { frames, bytes, kinds, canarySightings, oddities };
}

function* framesOf(capture: Buffer): Generator<Buffer> {
  if (capture.length < 24) return;
  const magic = capture.readUInt32LE(0);
  const little = magic === 0xa1b2c3d4 || magic === 0xa1b23c4d;
  const read = (at: number) => (little ? capture.readUInt32LE(at) : capture.readUInt32BE(at));
  let at = 24;
  while (at + 16 <= capture.length) {
    const length = read(at + 8);
    // The last record may be cut off: the capture was stopped while it was written.
    if (at + 16 + length > capture.length) return;
    yield capture.subarray(at + 16, at + 16 + length);
    at += 16 + length;
  }
}

interface Packet {
  readonly source: IpAddress;
  readonly destination: IpAddress;
  readonly protocol: number;
  readonly payload: Buffer;
}

function packetOf(frame: Buffer, etherType: number): Packet | undefined {
  const ip = frame.subarray(14);
  if (etherType === 0x0800 && ip.length >= 20)
    return {
      source: ipFromBytes(ip.subarray(12, 16)),
      destination: ipFromBytes(ip.subarray(16, 20)),
      protocol: ip.readUInt8(9),
      payload: ip.subarray((ip.readUInt8(0) & 15) * 4),
    };
  if (etherType === 0x86dd && ip.length >= 40) {
    // Multicast listener reports stand behind a hop-by-hop header (RFC 3810 section 5).
    const hopByHop = ip.readUInt8(6) === 0 && ip.length >= 48;
    return {
      source: ipFromBytes(ip.subarray(8, 24)),
      destination: ipFromBytes(ip.subarray(24, 40)),
      protocol: ip.readUInt8(hopByHop ? 40 : 6),
      payload: ip.subarray(hopByHop ? 40 + (ip.readUInt8(41) + 1) * 8 : 40),
    };
  }
  return undefined;
}

function classify(frame: Buffer, pods: readonly Prefix[], ports: WirePorts): { kind: FrameKind; text: string } {
  if (frame.length < 14) return { kind: 'other', text: 'a frame shorter than an Ethernet header' };
  const etherType = frame.readUInt16BE(12);
  if (etherType === 0x0806) return { kind: 'ARP', text: '' };
  const packet = packetOf(frame, etherType);
  if (packet === undefined) return { kind: 'other', text: `EtherType 0x${etherType.toString(16)}` };
  const text = `${packet.source} → ${packet.destination} protocol ${packet.protocol}`;
  const isPod = (ip: IpAddress) => pods.some((prefix) => prefixContains(prefix, ip));
  if (isPod(packet.source) || isPod(packet.destination)) return { kind: 'plaintext', text };
  if (packet.protocol === 58) return { kind: 'IPv6 neighbour discovery', text };
  if ((packet.protocol === 6 || packet.protocol === 17) && packet.payload.length >= 4) {
    const pair = [packet.payload.readUInt16BE(0), packet.payload.readUInt16BE(2)];
    const uses = (port: number) => pair.includes(port);
    if (packet.protocol === 17 && uses(ports.esp)) return { kind: 'ESP in UDP', text };
    if (packet.protocol === 6 && uses(ports.handshake)) return { kind: 'handshake (TLS)', text };
    if (packet.protocol === 6 && uses(ports.api)) return { kind: 'API (TLS)', text };
    if (packet.protocol === 6 && uses(ports.controller)) return { kind: 'CA (TLS)', text };
    return { kind: 'other', text: `${text} ports ${pair.join(' → ')}` };
  }
  return { kind: 'other', text };
}
