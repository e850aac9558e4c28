import type { BpfMap } from '../../kernel/bpf/map.ts';
import type { LoadedObject } from '../../kernel/bpf/object.ts';

/** Objects as they are loaded one after the other, each with the maps of those before. */
export class Loading {
  /** By name: all that there are so far. */
  readonly maps: Map<string, BpfMap>;
  /** Those that an object was the first to have, with handles that outlive it. */
  readonly made = new Map<string, BpfMap>();
  /** By file. */
  readonly objects = new Map<string, LoadedObject>();

  /** @param maps That are there already, and are not this one's to close. */
  constructor(maps: ReadonlyMap<string, BpfMap>) {
    this.maps = new Map(maps);
  }

  take(file: string, object: LoadedObject): void {
    this.objects.set(file, object);
    for (const [name, map] of object.maps) {
      if (object.spec.maps.get(name)?.internal !== false || this.maps.has(name)) continue;
      const own = map.another();
      this.made.set(name, own);
      this.maps.set(name, own);
    }
  }

  closeObjects(): void {
    for (const object of this.objects.values()) object.close();
  }

  close(): void {
    this.closeObjects();
    for (const map of this.made.values()) map.close();
  }
}
