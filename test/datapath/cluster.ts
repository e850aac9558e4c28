import { type IpAddress, type MacAddress, parseIp, parseMac } from '../../src/model/address.ts';
import { type IdentityNumber, reservedIdentity } from '../../src/model/identity.ts';
import { type Prefix, parsePrefix } from '../../src/model/prefix.ts';

/** One small cluster, as the maps of its first node hold it: what most program tests start from. */

/** A pod as the datapath knows it. */
export interface Pod {
  readonly id: number;
  readonly identity: IdentityNumber;
  /** Of the host's end of its link; no device of that index need exist. */
  readonly ifindex: number;
  readonly mac: MacAddress;
  readonly hostMac: MacAddress;
  readonly address4: IpAddress;
  readonly address6: IpAddress;
}

function pod(id: number, node: number): Pod {
  return {
    id,
    identity: identity(300 + id),
    ifindex: 1000 + id,
    mac: parseMac(`02:00:00:00:0${node}:0${id}`),
    hostMac: parseMac(`0e:00:00:00:0${node}:0${id}`),
    address4: parseIp(`10.244.${node}.1${id}`),
    address6: parseIp(`fd00:10:244:${node}::1${id}`),
  };
}

export function identity(number: number): IdentityNumber {
  return number as IdentityNumber;
}

/** Three pods of this node, and one of another. */
export const [alice, bob, carol, remote] = [pod(1, 1), pod(2, 1), pod(3, 1), pod(4, 2)];

export const node = { address4: parseIp('192.0.2.1'), address6: parseIp('2001:db8::1') };
export const otherNode = { address4: parseIp('192.0.2.2'), address6: parseIp('2001:db8::2') };
export const gateway = { address4: parseIp('169.254.1.1'), address6: parseIp('fe80::1') };
export const world = { address4: parseIp('198.51.100.7'), address6: parseIp('2001:db8:ffff::7') };
/** Of the pods' addresses, but nobody's. */
export const nobody = { address4: parseIp('10.244.9.9'), address6: parseIp('fd00:10:244:9::9') };
export const service = { address4: parseIp('10.96.0.50'), address6: parseIp('fd00:10:96::50') };

export const podCidrs: readonly Prefix[] = ['10.244.0.0/16', 'fd00:10:244::/56'].map(parsePrefix);
export const serviceCidrs: readonly Prefix[] = ['10.96.0.0/16', 'fd00:10:96::/112'].map(parsePrefix);

export const tunnelIfindex = 2001;
export const uplinkIfindex = 2002;

/** Rule sets that every program test has. */
export const sets = { open: 1, isolated: 2, web: 3 } as const;
export const rules = { isolation: 100, web: 101, deny: 102 } as const;

export const marks = {
  /** What the node's nftables put on its own packets. */
  host: 0x4d000001,
  of: (who: IdentityNumber): number => 0x4d000000 | who,
  /** The world, having come in by the uplink. */
  world: 0x57000000 | reservedIdentity.world,
  worldAs: (who: IdentityNumber): number => 0x57000000 | who,
} as const;
