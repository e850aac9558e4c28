import { familyOf, type IpAddress } from '../model/address.ts';
import { type Prefix, prefixOf, prefixParts } from '../model/prefix.ts';
import { type PeerEntry, type PrefixEntry, peerKinds } from '../policy/image.ts';
import type { Peer, PrefixKey } from './layouts.ts';

type Kind = keyof typeof peerKinds;

/** The value that `peers` and `prefixes` hold. */
export function placeValue({ identity, kind }: PeerEntry | PrefixEntry): Peer {
  return { identity, kind: peerKinds[kind] };
}

/** In the trie's 128 bits IPv4 is ::ffff:0:0/96. */
export function prefixKeyOf(prefix: Prefix): PrefixKey {
  const { address, length, family } = prefixParts(prefix);
  return { length: family === 4 ? length + 96 : length, address };
}

export function prefixOfKey({ length, address }: PrefixKey): Prefix {
  return prefixOf(address, familyOf(address) === 4 ? length - 96 : length);
}

/** @returns Undefined where the number is none that this version knows. */
export function kindOf(code: number): Kind | undefined {
  for (const [name, value] of Object.entries(peerKinds)) if (value === code) return isKind(name) ? name : undefined;
  return undefined;
}

function isKind(name: string): name is Kind {
  return name in peerKinds;
}

export function isPeerKind(kind: Kind | undefined): kind is PeerEntry['kind'] {
  return kind === 'local-pod' || kind === 'remote-pod' || kind === 'this-node' || kind === 'other-node';
}

export function isPrefixKind(kind: Kind | undefined): kind is PrefixEntry['kind'] {
  return kind === 'unknown-pod' || kind === 'world' || kind === 'unknown-service';
}

/** The one of a pod's addresses that is of a family. */
export function addressOfFamily(addresses: readonly IpAddress[], family: 4 | 6): IpAddress | undefined {
  return addresses.find((address) => familyOf(address) === family);
}
