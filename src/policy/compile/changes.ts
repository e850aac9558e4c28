import type { IpAddress } from '../../model/address.ts';
import type { PolicyImage } from '../image.ts';

type Peers = PolicyImage['peers'];

/** For a map of peers that was made from another: the addresses at which they may differ. A hint, to look at those only. */
const changes = new WeakMap<Peers, { readonly before: Peers; readonly addresses: readonly IpAddress[] }>();

export function noteChanges(before: Peers, after: Peers, addresses: readonly IpAddress[]): void {
  changes.set(after, { before, addresses });
}

/** @returns Addresses of `after` or `before`, all those among them at which they differ. */
export function addressesThatMayDiffer(before: Peers | undefined, after: Peers): Iterable<IpAddress> {
  if (before === after) return [];
  if (before === undefined) return after.keys();
  const noted = changes.get(after);
  return noted?.before === before ? noted.addresses : new Set([...before.keys(), ...after.keys()]);
}
