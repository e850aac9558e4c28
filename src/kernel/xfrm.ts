import { familyOf, type IpAddress, ipFromBytes, ipToBytes } from '../model/address.ts';
import { type Prefix, prefixParts } from '../model/prefix.ts';
import { attribute, attributes, NetlinkSocket, netlinkFlags } from './netlink.ts';

/**
 * The kernel's own ESP: security associations and policies over NETLINK_XFRM (linux/xfrm.h). Keys travel in the message
 * only, never over a command line. Layouts are those of 64-bit little-endian machines; offsets stand beside the fields.
 */

const NETLINK_XFRM = 6;
const message = { newSa: 0x10, deleteSa: 0x11, getSa: 0x12, newPolicy: 0x13, deletePolicy: 0x14 } as const;
const attributeType = {
  encapsulation: 4,
  template: 5,
  sourceAddress: 13,
  aead: 18,
  replay: 23,
  interfaceId: 31,
} as const;

const usersaInfoBytes = 224;
const policyInfoBytes = 168;
const policyIdBytes = 64;
const templateBytes = 64;
const selectorBytes = 56;

const ESP = 50;
const modeTunnel = 1;
const flagAf6Unspec = 1 << 5;
const flagEsn = 1 << 7;
const UDP_ENCAP_ESPINUDP = 2;
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
  readonly replayFailures: number;
  readonly integrityFailures: number;
  /** The highest sequence number sent, or received and verified. */
  readonly sequence: number;
}

/** A policy for packets that enter (or leave) the xfrm interface `interfaceId`. */
export interface XfrmPolicy {
  readonly direction: 'in' | 'out' | 'forward';
  readonly source: Prefix;
  readonly destination: Prefix;
  readonly interfaceId: number;
  /** Lower decides. */
  readonly priority: number;
  /** Absent: packets are dropped. */
  readonly tunnel?: { readonly source: IpAddress; readonly destination: IpAddress; readonly requestId: number };
}

const directions = { in: 0, out: 1, forward: 2 } as const;

/** The xfrm database of this process's network namespace. All methods throw KernelError `Errno`. */
export class Xfrm {
  readonly #socket = new NetlinkSocket(NETLINK_XFRM);

  /** @throws {KernelError} `Errno` (EEXIST; EPROTONOSUPPORT or ENOSYS where the kernel has no ESP) */
  addState(state: XfrmState): void {
    const payload = Buffer.concat([
      usersaInfo(state),
      attribute(attributeType.aead, aead(state.keyAndSalt)),
      attribute(attributeType.encapsulation, encapsulation(state.encapsulation)),
      attribute(attributeType.replay, replayState(state.replayWindow)),
      attribute(attributeType.interfaceId, u32(state.interfaceId)),
    ]);
    try {
      const flags = netlinkFlags.ack | netlinkFlags.create | netlinkFlags.exclusive;
      this.#socket.request(message.newSa, flags, payload, 'add the security association', name(state));
    } finally {
      payload.fill(0);
    }
  }

  /** @throws {KernelError} `Errno` (ESRCH) */
  deleteState(id: { readonly source: IpAddress; readonly destination: IpAddress; readonly spi: number }): void {
    const payload = Buffer.alloc(24);
    // struct xfrm_usersa_id: daddr 0, spi 16, family 20, proto 22
    payload.set(ipToBytes(id.destination), 0);
    payload.writeUInt32BE(id.spi, 16);
    payload.writeUInt16LE(addressFamily(id.destination), 20);
    payload.writeUInt8(ESP, 22);
    this.#socket.request(message.deleteSa, netlinkFlags.ack, payload, 'delete the security association', name(id));
  }

  states(): XfrmStateInfo[] {
    return this.#socket
      .request(message.getSa, netlinkFlags.dump, Buffer.alloc(0), 'list security associations', 'xfrm')
      .filter(({ type }) => type === message.newSa)
      .map(({ payload }) => stateInfo(payload));
  }

  /** Replaces the policy of the same selector, direction and interface. */
  setPolicy(policy: XfrmPolicy): void {
    const parts = [policyInfo(policy)];
    if (policy.tunnel !== undefined) parts.push(attribute(attributeType.template, template(policy.tunnel)));
    parts.push(attribute(attributeType.interfaceId, u32(policy.interfaceId)));
    const updatePolicy = 0x19;
    this.#socket.request(
      updatePolicy,
      netlinkFlags.ack,
      Buffer.concat(parts),
      'set the policy',
      `${policy.source} → ${policy.destination}`,
    );
  }

  /** @throws {KernelError} `Errno` (ENOENT) */
  deletePolicy(policy: Pick<XfrmPolicy, 'direction' | 'source' | 'destination' | 'interfaceId'>): void {
    // struct xfrm_userpolicy_id: sel 0, index 56, dir 60
    const id = Buffer.alloc(policyIdBytes);
    id.set(selector(policy.source, policy.destination), 0);
    id.writeUInt8(directions[policy.direction], 60);
    const payload = Buffer.concat([id, attribute(attributeType.interfaceId, u32(policy.interfaceId))]);
    this.#socket.request(
      message.deletePolicy,
      netlinkFlags.ack,
      payload,
      'delete the policy',
      `${policy.source} → ${policy.destination}`,
    );
  }

  close(): void {
    this.#socket.close();
  }
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
  const limits = [infinity, limit(state.hardBytes), infinity, limit(state.hardPackets)];
  // struct xfrm_lifetime_cfg: soft and hard bytes, soft and hard packets, then times (0: none)
  for (const [i, value] of limits.entries()) info.writeBigUInt64LE(value, 96 + 8 * i);
  info.writeUInt32LE(state.requestId, 208);
  info.writeUInt16LE(addressFamily(state.destination), 212);
  info.writeUInt8(modeTunnel, 214);
  info.writeUInt8(flagAf6Unspec | flagEsn, 216);
  return info;
}

function stateInfo(payload: Buffer): XfrmStateInfo {
  const length = payload.readUInt16LE(212) === 10 ? 16 : 4;
  const extra = attributes(payload.subarray(usersaInfoBytes));
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
    usedAt: Number(payload.readBigUInt64LE(184)),
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
function encapsulation(ports: XfrmState['encapsulation']): Buffer {
  const bytes = Buffer.alloc(24);
  bytes.writeUInt16LE(UDP_ENCAP_ESPINUDP, 0);
  bytes.writeUInt16BE(ports.sourcePort, 2);
  bytes.writeUInt16BE(ports.destinationPort, 4);
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

function name(id: { readonly source: IpAddress; readonly destination: IpAddress; readonly spi: number }): string {
  return `SPI 0x${id.spi.toString(16)} ${id.source} → ${id.destination}`;
}
