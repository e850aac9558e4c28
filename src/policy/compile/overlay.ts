/** Below this many entries a copy costs nothing worth saving. */
const large = 4096;

/**
 * A map with some of its entries changed; `before` stays as it is. Of a large map only the changes are kept beside it,
 * until they are many: to copy all of it for one change would cost more than the rest of a compilation.
 * @param changes Undefined: the key goes.
 */
export function changed<K, V extends object>(
  before: ReadonlyMap<K, V>,
  changes: ReadonlyMap<K, V | undefined>,
): ReadonlyMap<K, V> {
  if (before.size < large) return merged(before, changes);
  const overlay = before instanceof Overlay ? before : undefined;
  const base: ReadonlyMap<K, V> = overlay?.base ?? before;
  const all = overlay === undefined ? changes : new Map([...overlay.changes, ...changes]);
  return all.size > base.size / 16 ? merged(before, changes) : new Overlay(base, all);
}

function merged<K, V>(before: ReadonlyMap<K, V>, changes: ReadonlyMap<K, V | undefined>): Map<K, V> {
  const copy = new Map(before);
  for (const [key, value] of changes)
    if (value === undefined) copy.delete(key);
    else copy.set(key, value);
  return copy;
}

class Overlay<K, V extends object> implements ReadonlyMap<K, V> {
  readonly base: ReadonlyMap<K, V>;
  readonly changes: ReadonlyMap<K, V | undefined>;
  readonly size: number;

  constructor(base: ReadonlyMap<K, V>, changes: ReadonlyMap<K, V | undefined>) {
    this.base = base;
    this.changes = changes;
    let size = base.size;
    for (const [key, value] of changes) size += Number(value !== undefined) - Number(base.has(key));
    this.size = size;
  }

  get(key: K): V | undefined {
    return this.changes.get(key) ?? (this.changes.has(key) ? undefined : this.base.get(key));
  }

  has(key: K): boolean {
    return this.get(key) !== undefined;
  }

  forEach(call: (value: V, key: K, map: ReadonlyMap<K, V>) => void): void {
    for (const [key, value] of this) call(value, key, this);
  }

  *entries(): MapIterator<[K, V]> {
    for (const entry of this.base) if (!this.changes.has(entry[0])) yield entry;
    for (const [key, value] of this.changes) if (value !== undefined) yield [key, value];
    return undefined;
  }

  *keys(): MapIterator<K> {
    for (const [key] of this.entries()) yield key;
    return undefined;
  }

  *values(): MapIterator<V> {
    for (const [, value] of this.entries()) yield value;
    return undefined;
  }

  [Symbol.iterator](): MapIterator<[K, V]> {
    return this.entries();
  }
}
