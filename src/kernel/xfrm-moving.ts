import { familyOf, type IpAddress, ipFromBytes, ipToBytes } from '../model/address.ts';
import { attribute } from './netlink.ts';
import {
  attributeType,
  ESP,
  encapsulation,
  encodePolicyId,
  modeTunnel,
  type XfrmPolicyId,
  type XfrmState,
  type XfrmStateId,
} from './xfrm-layout.ts';

/** The structs of linux/xfrm.h about peers that are elsewhere, as in xfrm-layout.ts. */

const migrateBytes = 76;

/** The kernel has opened a packet of an inbound state that came from another place than the state says. */
export interface XfrmMapping {
  readonly destination: IpAddress;
  readonly spi: number;
  readonly from: { readonly address: IpAddress; readonly port: number };
}

/** An outbound state whose peer has another address. */
export interface XfrmMove extends Pick<XfrmState, keyof XfrmStateId | 'requestId' | 'interfaceId' | 'encapsulation'> {
  readonly to: IpAddress;
  /** A policy whose template is the state's: MIGRATE begins with a policy. */
  readonly by: XfrmPolicyId;
}

/** struct xfrm_user_mapping: id 0 (daddr 0, spi 16, family 20), reqid 24, old_saddr 28, new_saddr 44, old_sport 60, new_sport 62 */
export function decodeMapping(payload: Buffer): XfrmMapping {
  const length = payload.readUInt16LE(20) === 10 ? 16 : 4;
  return {
    destination: ipFromBytes(payload.subarray(0, length)),
    spi: payload.readUInt32BE(16),
    from: { address: ipFromBytes(payload.subarray(44, 44 + length)), port: payload.readUInt16BE(62) },
  };
}

/**
 * What MIGRATE wants.
 * struct xfrm_user_migrate: old_daddr 0, old_saddr 16, new_daddr 32, new_saddr 48, proto 64, mode 65, reqid 68, old_family 72, new_family 74
 */
export function encodeMove(move: XfrmMove): Buffer {
  const bytes = Buffer.alloc(migrateBytes);
  bytes.set(ipToBytes(move.destination), 0);
  bytes.set(ipToBytes(move.source), 16);
  bytes.set(ipToBytes(move.to), 32);
  bytes.set(ipToBytes(move.source), 48);
  bytes.writeUInt8(ESP, 64);
  bytes.writeUInt8(modeTunnel, 65);
  bytes.writeUInt32LE(move.requestId, 68);
  const family = familyOf(move.to) === 4 ? 2 : 10;
  for (const at of [72, 74]) bytes.writeUInt16LE(family, at);
  // The policy's id ends with the interface's.
  return Buffer.concat([
    encodePolicyId({ ...move.by, interfaceId: move.interfaceId }),
    attribute(attributeType.migrate, bytes),
    attribute(attributeType.encapsulation, encapsulation(move.encapsulation)),
  ]);
}
