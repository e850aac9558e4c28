import { familyOf, type IpAddress, ipFromBytes, ipToBytes } from '../model/address.ts';
import { type Prefix, prefixOf, prefixParts } from '../model/prefix.ts';
import { attribute, attributes } from './netlink.ts';

/**
 * The structs of linux/xfrm.h as bytes, as they are on 64-bit little-endian machines; offsets stand beside the fields.
 */

export const attributeType = {
  encapsulation: 4,
  template: 5,
  lifetime: 9,
  lastUsed: 15,
  migrate: 17,
  aead: 18,
  replay: 23,
  offload: 28,
  interfaceId: 31,
  mappingInterval: 32,
} as const;

const usersaInfoBytes = 224;
const expireBytes = 232;
const eventIdBytes = 48;
const policyInfoBytes = 168;
const policyIdBytes = 64;
const templateBytes = 64;
const selectorBytes = 56;

export const ESP = 50;
export const modeTunnel = 1;
const flagAf6Unspec = 1 << 5;
const flagEsn = 1 << 7;
const UDP_ENCAP_ESPINUDP = 2;
const offloadIpv6 = 1;
const offloadInbound = 2;
const infinity = 0xffff_ffff_ffff_ffffn;

export interface XfrmState {
  readonly source: IpAddress;
  readonly destination: IpAddress;
  readonly spi: number;
  /** Ties the state to the policy templates that may use it. */
  readonly requestId: number;
  readonly interfaceId: number;
  /** AES-256 key and the four bytes of salt behind it (RFC 4106 section 8.1). */
  readonly keyAndSalt: Uint8Array;
  readonly encapsulation: { readonly sourcePort: number; readonly destinationPort: number };
  /** Packets; the window lives in the ESN replay state. */
  readonly replayWindow: number;
  /** The device that is to seal, or open, what passes it; the packets stay the kernel's. */
  readonly offload?: { readonly ifindex: number; readonly direction: 'in' | 'out' };
  /** Seconds between two messages about packets from elsewhere, while they come from one port. Absent: one with each packet. */
  readonly mappingInterval?: number;
  readonly softBytes?: number;
  readonly softPackets?: number;
  readonly hardBytes?: number;
  readonly hardPackets?: number;
}

export interface XfrmStateInfo {
  readonly source: IpAddress;
  readonly destination: IpAddress;
  readonly spi: number;
  readonly interfaceId: number;
  readonly bytes: number;
  readonly packets: number;
  /** Unix seconds; 0 for never. */
  readonly usedAt: number;
  /** Packets older than the replay window. */
  readonly windowFailures: number;
  readonly replayFailures: number;
  readonly integrityFailures: number;
  /** The highest sequence number sent, or received and verified. */
  readonly sequence: number;
}

/** Names a state; of an inbound one the source does not count. */
export type XfrmStateId = Pick<XfrmState, 'source' | 'destination' | 'spi'>;

/** A state reached its soft limit, or its hard one, by which it is gone. */
export interface XfrmExpiry {
  readonly state: XfrmStateInfo;
  readonly hard: boolean;
}

export interface XfrmPolicyId {
  readonly direction: 'in' | 'out' | 'forward';
  readonly source: Prefix;
  readonly destination: Prefix;
  readonly interfaceId: number;
}

/** A policy for packets that enter (or leave) the xfrm interface `interfaceId`. */
export interface XfrmPolicy extends XfrmPolicyId {
  /** Lower decides. */
  readonly priority: number;
  /** Absent: packets are dropped. */
  readonly tunnel?: { readonly source: IpAddress; readonly destination: IpAddress; readonly requestId: number };
}

const directions = { in: 0, out: 1, forward: 2 } as const;

/** What NEWSA wants. It holds the key: to be wiped. */
export function encodeState(state: XfrmState): Buffer {
  const key = aead(state.keyAndSalt);
  const parts = [
    usersaInfo(state),
    attribute(attributeType.aead, key),
    attribute(attributeType.encapsulation, encapsulation(state.encapsulation)),
    attribute(attributeType.replay, replayState(state.replayWindow)),
    attribute(attributeType.interfaceId, u32(state.interfaceId)),
    ...(state.mappingInterval === undefined
      ? []
      : [attribute(attributeType.mappingInterval, u32(state.mappingInterval))]),
    ...(state.offload === undefined ? [] : [attribute(attributeType.offload, offload(state, state.offload))]),
  ];
  const payload = Buffer.concat(parts);
  for (const part of [key, ...parts]) part.fill(0);
  return payload;
}

/** struct xfrm_usersa_id: daddr 0, spi 16, family 20, proto 22 */
export function encodeStateId(id: XfrmStateId): Buffer {
  const bytes = Buffer.alloc(24);
  bytes.set(ipToBytes(id.destination), 0);
  bytes.writeUInt32BE(id.spi, 16);
  bytes.writeUInt16LE(addressFamily(id.destination), 20);
  bytes.writeUInt8(ESP, 22);
  return bytes;
}

/** struct xfrm_aevent_id: sa_id 0, saddr 24, flags 40, reqid 44 */
export function encodeEventId(id: XfrmStateId): Buffer {
  return Buffer.concat([encodeStateId(id), Buffer.alloc(eventIdBytes - 24)]);
}

/** struct xfrm_lifetime_cur: bytes 0, packets 8 */
export function decodeUsage(payload: Buffer): { readonly bytes: number; readonly packets: number } {
  const lifetime = attributes(payload.subarray(eventIdBytes)).get(attributeType.lifetime);
  if (lifetime === undefined) return { bytes: 0, packets: 0 };
  return { bytes: Number(lifetime.readBigUInt64LE(0)), packets: Number(lifetime.readBigUInt64LE(8)) };
}

/** struct xfrm_user_expire: state 0, hard 224 */
export function decodeExpiry(payload: Buffer): XfrmExpiry {
  const extra = payload.subarray(expireBytes);
  return { state: decodeState(payload, extra), hard: payload.readUInt8(usersaInfoBytes) !== 0 };
}

/** struct xfrm_usersa_info: sel 0, id 56, saddr 80, lft 96, curlft 160, stats 192, seq 204, reqid 208, family 212, mode 214, replay_window 215, flags 216 */
function usersaInfo(state: XfrmState): Buffer {
  const info = Buffer.alloc(usersaInfoBytes);
  // The selector stays empty with family 0: one association carries both families of its pod pair (flag AF_UNSPEC), and
  // the datapath holds its inner addresses against the proven pair.
  info.set(ipToBytes(state.destination), 56);
  info.writeUInt32BE(state.spi, 72);
  info.writeUInt8(ESP, 76);
  info.set(ipToBytes(state.source), 80);
  const limits = [state.softBytes, state.hardBytes, state.softPackets, state.hardPackets].map(limit);
  // struct xfrm_lifetime_cfg: soft and hard bytes, soft and hard packets, then times (0: none)
  for (const [i, value] of limits.entries()) info.writeBigUInt64LE(value, 96 + 8 * i);
  info.writeUInt32LE(state.requestId, 208);
  info.writeUInt16LE(addressFamily(state.destination), 212);
  info.writeUInt8(modeTunnel, 214);
  info.writeUInt8(flagAf6Unspec | flagEsn, 216);
  return info;
}

export function decodeState(payload: Buffer, rest = payload.subarray(usersaInfoBytes)): XfrmStateInfo {
  const length = payload.readUInt16LE(212) === 10 ? 16 : 4;
  const extra = attributes(rest);
  // struct xfrm_replay_state_esn: bmp_len, oseq, seq, oseq_hi, seq_hi, replay_window
  const replay = extra.get(attributeType.replay);
  const wide = (low: number, high: number) =>
    replay === undefined ? 0 : replay.readUInt32LE(high) * 2 ** 32 + replay.readUInt32LE(low);
  return {
    destination: ipFromBytes(payload.subarray(56, 56 + length)),
    spi: payload.readUInt32BE(72),
    source: ipFromBytes(payload.subarray(80, 80 + length)),
    bytes: Number(payload.readBigUInt64LE(160)),
    packets: Number(payload.readBigUInt64LE(168)),
    // The lifetime's own use time is that of the first use.
    usedAt: Number(extra.get(attributeType.lastUsed)?.readBigUInt64LE(0) ?? payload.readBigUInt64LE(184)),
    windowFailures: payload.readUInt32LE(192),
    replayFailures: payload.readUInt32LE(196),
    integrityFailures: payload.readUInt32LE(200),
    interfaceId: extra.get(attributeType.interfaceId)?.readUInt32LE(0) ?? 0,
    sequence: Math.max(wide(4, 12), wide(8, 16)),
  };
}

/** struct xfrm_userpolicy_info: sel 0, lft 56, curlft 120, priority 152, index 156, dir 160, action 161 */
function policyInfo(policy: XfrmPolicy): Buffer {
  const info = Buffer.alloc(policyInfoBytes);
  info.set(selector(policy.source, policy.destination), 0);
  for (let i = 0; i < 4; i++) info.writeBigUInt64LE(infinity, 56 + 8 * i);
  info.writeUInt32LE(policy.priority, 152);
  info.writeUInt8(directions[policy.direction], 160);
  info.writeUInt8(policy.tunnel === undefined ? 1 : 0, 161);
  return info;
}

/** What UPDPOLICY wants. */
export function encodePolicy(policy: XfrmPolicy): Buffer {
  const tunnel = policy.tunnel === undefined ? [] : [attribute(attributeType.template, template(policy.tunnel))];
  const interfaceId = attribute(attributeType.interfaceId, u32(policy.interfaceId));
  return Buffer.concat([policyInfo(policy), ...tunnel, interfaceId]);
}

/** struct xfrm_userpolicy_id: sel 0, index 56, dir 60 */
export function encodePolicyId(id: XfrmPolicyId): Buffer {
  const bytes = Buffer.alloc(policyIdBytes);
  bytes.set(selector(id.source, id.destination), 0);
  bytes.writeUInt8(directions[id.direction], 60);
  return Buffer.concat([bytes, attribute(attributeType.interfaceId, u32(id.interfaceId))]);
}

/** As policyInfo lays it out. @returns Undefined for a direction or family that is not of these. */
export function decodePolicyId(payload: Buffer): XfrmPolicyId | undefined {
  const direction = (['in', 'out', 'forward'] as const)[payload.readUInt8(160)];
  const length = { 2: 4, 10: 16 }[payload.readUInt16LE(40)];
  if (direction === undefined || length === undefined) return undefined;
  const prefix = (at: number, bits: number) => prefixOf(ipFromBytes(payload.subarray(at, at + length)), bits);
  return {
    direction,
    destination: prefix(0, payload.readUInt8(42)),
    source: prefix(16, payload.readUInt8(43)),
    interfaceId: attributes(payload.subarray(policyInfoBytes)).get(attributeType.interfaceId)?.readUInt32LE(0) ?? 0,
  };
}

/** struct xfrm_user_tmpl: id 0, family 24, saddr 28, reqid 44, mode 48, share 49, optional 50, aalgos 52, ealgos 56, calgos 60 */
function template(tunnel: NonNullable<XfrmPolicy['tunnel']>): Buffer {
  const bytes = Buffer.alloc(templateBytes);
  bytes.set(ipToBytes(tunnel.destination), 0);
  bytes.writeUInt8(ESP, 20);
  bytes.writeUInt16LE(addressFamily(tunnel.destination), 24);
  bytes.set(ipToBytes(tunnel.source), 28);
  bytes.writeUInt32LE(tunnel.requestId, 44);
  bytes.writeUInt8(modeTunnel, 48);
  for (const at of [52, 56, 60]) bytes.writeUInt32LE(0xffff_ffff, at);
  return bytes;
}

/** struct xfrm_selector: daddr 0, saddr 16, ports 32, family 40, prefixlen_d 42, prefixlen_s 43, proto 44, ifindex 48, user 52 */
function selector(source: Prefix, destination: Prefix): Buffer {
  const bytes = Buffer.alloc(selectorBytes);
  const [from, to] = [prefixParts(source), prefixParts(destination)];
  bytes.set(ipToBytes(to.address), 0);
  bytes.set(ipToBytes(from.address), 16);
  bytes.writeUInt16LE(addressFamily(to.address), 40);
  bytes.writeUInt8(to.length, 42);
  bytes.writeUInt8(from.length, 43);
  return bytes;
}

/** struct xfrm_algo_aead: name 0, key bits 64, ICV bits 68, key 72 */
function aead(keyAndSalt: Uint8Array): Buffer {
  const bytes = Buffer.alloc(72 + keyAndSalt.length);
  bytes.write('rfc4106(gcm(aes))', 0, 'latin1');
  bytes.writeUInt32LE(keyAndSalt.length * 8, 64);
  bytes.writeUInt32LE(128, 68);
  bytes.set(keyAndSalt, 72);
  return bytes;
}

/** struct xfrm_encap_tmpl: type 0, ports 2 and 4 (network order), original address 8 */
export function encapsulation(ports: XfrmState['encapsulation']): Buffer {
  const bytes = Buffer.alloc(24);
  bytes.writeUInt16LE(UDP_ENCAP_ESPINUDP, 0);
  bytes.writeUInt16BE(ports.sourcePort, 2);
  bytes.writeUInt16BE(ports.destinationPort, 4);
  return bytes;
}

/** struct xfrm_user_offload: ifindex 0, flags 4. Crypto offload: XFRM_OFFLOAD_PACKET is not among the flags. */
function offload({ destination }: XfrmState, { ifindex, direction }: NonNullable<XfrmState['offload']>): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeInt32LE(ifindex, 0);
  bytes.writeUInt8((familyOf(destination) === 6 ? offloadIpv6 : 0) | (direction === 'in' ? offloadInbound : 0), 4);
  return bytes;
}

/** struct xfrm_replay_state_esn, with an empty bitmap. */
function replayState(window: number): Buffer {
  const words = Math.ceil(window / 32);
  const bytes = Buffer.alloc(24 + 4 * words);
  bytes.writeUInt32LE(words, 0);
  bytes.writeUInt32LE(words * 32, 20);
  return bytes;
}

function limit(value: number | undefined): bigint {
  return value === undefined ? infinity : BigInt(value);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function addressFamily(ip: IpAddress): number {
  return familyOf(ip) === 4 ? 2 : 10;
}

export function nameOf(id: XfrmStateId): string {
  return `SPI 0x${id.spi.toString(16)} ${id.source} → ${id.destination}`;
}

export function nameOfPolicy(id: XfrmPolicyId): string {
  return `${id.source} → ${id.destination}`;
}
