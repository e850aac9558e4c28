import type { DatapathObjects } from '../objects.ts';
import type { Room } from './capacity.ts';

/** How full a map is, and what it takes. */
export interface Usage {
  readonly used: number;
  readonly capacity: number;
  /** Bytes of the kernel's memory. */
  readonly bytes: number;
  /** How many entries it may come to have; absent of a map that does not grow. */
  readonly most?: number;
  /** Its capacity as it is made; absent where it has that. */
  readonly grownFrom?: number;
}

/** @returns What to say of a map that has so many entries. */
export function usageOf(
  name: string,
  used: number,
  objects: Pick<DatapathObjects, 'shared' | 'declared'>,
  room: Room,
): Usage {
  const map = objects.shared.get(name);
  const capacity = map?.info.maxEntries ?? 0;
  const most = room.most(name);
  const declared = objects.declared(name) ?? capacity;
  return {
    used,
    capacity,
    bytes: map?.memory ?? 0,
    ...(most === undefined ? {} : { most: Math.max(most, capacity) }),
    ...(most !== undefined && declared < capacity ? { grownFrom: declared } : {}),
  };
}
