import { totalmem } from 'node:os';
import { type MapInfo, mapTypes } from '../../kernel/bpf/map.ts';

/**
 * The maps that grow: those that only user space writes. What programs write themselves would go on being written by the
 * programs before while it is copied; those maps forget the longest unused, or have the capacity that they have.
 * How many entries each may come to have, where the machine has the memory.
 */
export const growing = {
  policy: 1 << 22,
  rule_sets: 1 << 18,
  identity_classes: 1 << 20,
  peers: 1 << 20,
  prefixes: 1 << 20,
  services: 1 << 18,
  service_fronts: 1 << 18,
  backends: 1 << 21,
  tunnel_in: 1 << 19,
  tunnel_out: 1 << 19,
  name_matchers: 1 << 16,
  name_states: 1 << 21,
  name_accepts: 1 << 20,
  name_patterns: 1 << 17,
  http_cells: 1 << 17,
  http_matchers: 1 << 14,
  http_alternatives: 1 << 18,
  http_rows: 1 << 20,
  http_accepts: 1 << 18,
} as const satisfies Record<string, number>;
export type GrowingMap = keyof typeof growing;

export const growingNames: ReadonlySet<string> = new Set(Object.keys(growing));

/** @returns Whether a map of this name grows. */
export function grows(name: string): name is GrowingMap {
  return growingNames.has(name);
}

/** How many entries a map would have at its fullest. */
export interface Need {
  /** Its name. */
  readonly map: string;
  readonly entries: number;
}

/** Who can make maps larger. */
export interface Room {
  /** Makes room for so many entries, as far as may be. Never rejects: who needs the room looks whether it is there. */
  make(needs: readonly Need[]): Promise<void>;
  /** How many entries a map may come to have. */
  most(map: string): number | undefined;
}

/** Maps as they are. */
export const fixedRoom: Room = { make: async () => {}, most: () => undefined };

/** Above this share of its capacity a map is made larger before there is need. */
export const fullShare = 0.8;
/** What one map may take of the memory there is. */
const memoryShare = 1 / 16;

/**
 * @param needed Entries that there must be room for.
 * @returns The capacity that the map should have: as it is, or doubled until there is head-room; undefined where that much
 * is not allowed.
 */
export function capacityFor(needed: number, capacity: number, most: number): number | undefined {
  if (needed > Math.max(most, capacity)) return undefined;
  let size = capacity;
  while (needed > fullShare * size && size < most) size = Math.min(2 * size, most);
  return size;
}

/**
 * @param memory Bytes; of the machine, or what this process's control group may take (which pays for its maps).
 * @returns How many entries a map may have at most.
 */
export function mostEntries(
  name: GrowingMap,
  info: Pick<MapInfo, 'type' | 'keySize' | 'valueSize'>,
  memory = memoryThere(),
): number {
  const fits = Math.floor((memory * memoryShare) / bytesPerEntry(info));
  // A hash has a power of two buckets whatever it is asked for.
  return Math.min(growing[name], 2 ** Math.floor(Math.log2(Math.max(1, fits))));
}

/** About; of a hash with its bucket and its head (struct htab_elem), of a trie with a node between two (struct lpm_trie_node). */
function bytesPerEntry({ type, keySize, valueSize }: Pick<MapInfo, 'type' | 'keySize' | 'valueSize'>): number {
  const padded = (size: number) => Math.ceil(size / 8) * 8;
  if (type === mapTypes.array) return padded(valueSize);
  if (type === mapTypes.lpmTrie) return 2 * padded(40 + keySize + valueSize);
  return 16 + 48 + padded(keySize) + padded(valueSize);
}

function memoryThere(): number {
  const limit = process.constrainedMemory();
  return limit > 0 ? Math.min(limit, totalmem()) : totalmem();
}
