import type { Logger } from 'pino';
import { familyOf, type IpAddress } from '../model/address.ts';
import type { Prefix } from '../model/prefix.ts';
import type { Cluster } from './cluster.ts';

/** What the API must say of a node before it can have pods. */
export interface Self {
  readonly addresses: readonly [IpAddress, ...IpAddress[]];
  readonly podCidrs: readonly Prefix[];
}

/** A node may be started before it is registered, or before the controller gave it its pod CIDRs: it waits, and says for what. */
export function waitForSelf(cluster: Cluster, name: string, logger: Logger): Promise<Self> {
  return new Promise((resolve) => {
    let said = '';
    const look = () => {
      const self = selfOf(cluster, name);
      if (typeof self !== 'string') {
        cluster.onView = () => {};
        resolve(self);
      } else if (self !== said) {
        said = self;
        logger.warn(self);
      }
    };
    cluster.onView = look;
    look();
  });
}

/** @returns Who this node is in the API, or what is still missing. */
function selfOf({ state }: Cluster, name: string): Self | string {
  const node = state.node(name);
  if (node === undefined) return `the API has no node ${name}: is it registered under that name?`;
  const [first, ...rest] = node.addresses;
  if (first === undefined) return `node ${name} has no InternalIP in its status`;
  if (node.podCidrs.length === 0) return `node ${name} has no pod CIDR yet: is the controller running?`;
  return { addresses: [first, ...rest], podCidrs: node.podCidrs };
}

/** @returns The address that tunnels begin and end at: the first of the family, else the first. */
export function underlayOf({ addresses }: Self, family: 4 | 6 | undefined): IpAddress {
  const [first] = addresses;
  return addresses.find((address) => familyOf(address) === (family ?? familyOf(first))) ?? first;
}

export function onePerFamily(addresses: readonly IpAddress[]): IpAddress[] {
  const families = ([4, 6] as const).map((family) => addresses.find((address) => familyOf(address) === family));
  return families.flatMap((address) => address ?? []);
}
