/** Below this many entries a copy costs nothing worth saving. */
const large = 1024;
/** How many entries a part has at most, on average: what a change copies. */
const partSize = 96;

type Key = string | number;

/**
 * A map with some of its entries changed; `before` stays as it is. Of a large map all but the parts that hold the changes
 * is shared between the two, so that a change costs as much in a map of a million entries as in one of a thousand.
 * @param changes Undefined: the key goes. Without changes, the result is `before`.
 */
export function changed<K extends Key, V>(
  before: ReadonlyMap<K, V>,
  changes: ReadonlyMap<K, V | undefined>,
): ReadonlyMap<K, V> {
  if (changes.size === 0) return before;
  if (before.size + changes.size >= large) return Parts.of(before).with(changes);
  const copy = new Map(before);
  put(copy, changes);
  return copy;
}

/** A map that changes, and whose every moment can be kept: all changes between two such moments are one `changed`. */
export class Changing<K extends Key, V> {
  #now: ReadonlyMap<K, V> = new Map();
  #changes = new Map<K, V | undefined>();

  /** @param value Undefined: the key goes. */
  set(key: K, value: V | undefined): void {
    this.#changes.set(key, value);
  }

  /** The very map of before where nothing changed. */
  get now(): ReadonlyMap<K, V> {
    this.#now = changed(this.#now, this.#changes);
    if (this.#changes.size > 0) this.#changes = new Map();
    return this.#now;
  }
}

/**
 * @returns All keys whose values are not the same object in both, and perhaps others. Few where the one map was made from
 * the other by `changed`, in however many steps.
 */
export function* differences<K extends Key, V>(
  before: ReadonlyMap<K, V>,
  after: ReadonlyMap<K, V>,
): Generator<K, undefined> {
  if (before === after) return;
  if (before instanceof Parts && after instanceof Parts && before.parts.length === after.parts.length) {
    // By number, because this is done often, and there are many parts: no garbage.
    for (let i = 0; i < after.parts.length; i++) {
      const [was, is] = [before.parts[i], after.parts[i]];
      if (was !== is && was !== undefined && is !== undefined) yield* among<K, V>(was, is);
    }
    return;
  }
  yield* among(before, after);
}

function* among<K, V>(before: ReadonlyMap<K, V>, after: ReadonlyMap<K, V>): Generator<K, undefined> {
  for (const [key, value] of after) if (before.get(key) !== value) yield key;
  for (const key of before.keys()) if (!after.has(key)) yield key;
}

function put<K, V>(map: Map<K, V>, changes: Iterable<readonly [K, V | undefined]>): void {
  for (const [key, value] of changes)
    if (value === undefined) map.delete(key);
    else map.set(key, value);
}

/** A map in parts by a hash of the key: of equally many parts, those that are the same object have the same entries. */
class Parts<K extends Key, V> implements ReadonlyMap<K, V> {
  /** As many as a power of two. */
  readonly parts: readonly ReadonlyMap<K, V>[];
  readonly size: number;

  private constructor(parts: readonly ReadonlyMap<K, V>[], size: number) {
    this.parts = parts;
    this.size = size;
  }

  static of<K extends Key, V>(map: ReadonlyMap<K, V>): Parts<K, V> {
    return map instanceof Parts ? map : Parts.#split(map);
  }

  static #split<K extends Key, V>(map: ReadonlyMap<K, V>): Parts<K, V> {
    const count = 2 ** Math.ceil(Math.log2(Math.max(2, (2 * map.size) / partSize)));
    const parts = Array.from({ length: count }, () => new Map<K, V>());
    for (const [key, value] of map) parts[hash(key) & (count - 1)]?.set(key, value);
    return new Parts(parts, map.size);
  }

  with(changes: ReadonlyMap<K, V | undefined>): Parts<K, V> {
    const byPart = new Map<number, [K, V | undefined][]>();
    for (const change of changes) {
      const at = hash(change[0]) & (this.parts.length - 1);
      const own = byPart.get(at);
      if (own === undefined) byPart.set(at, [change]);
      else own.push(change);
    }
    const parts = [...this.parts];
    let size = this.size;
    for (const [at, own] of byPart) {
      const copy = new Map(parts[at]);
      size -= copy.size;
      put(copy, own);
      size += copy.size;
      parts[at] = copy;
    }
    const made = new Parts(parts, size);
    return size > parts.length * partSize ? Parts.#split(made) : made;
  }

  get(key: K): V | undefined {
    return this.parts[hash(key) & (this.parts.length - 1)]?.get(key);
  }

  has(key: K): boolean {
    return this.parts[hash(key) & (this.parts.length - 1)]?.has(key) === true;
  }

  forEach(call: (value: V, key: K, map: ReadonlyMap<K, V>) => void): void {
    for (const part of this.parts) for (const [key, value] of part) call(value, key, this);
  }

  *entries(): MapIterator<[K, V]> {
    for (const part of this.parts) yield* part;
    return undefined;
  }

  *keys(): MapIterator<K> {
    for (const part of this.parts) yield* part.keys();
    return undefined;
  }

  *values(): MapIterator<V> {
    for (const part of this.parts) yield* part.values();
    return undefined;
  }

  [Symbol.iterator](): MapIterator<[K, V]> {
    return this.entries();
  }
}

/** Spreads keys over parts (FNV-1a, with its bits mixed). Whoever makes keys collide makes parts large, and nothing wrong. */
function hash(key: Key): number {
  let bits = 0x811c9dc5;
  if (typeof key === 'number') bits ^= key;
  else for (let i = 0; i < key.length; i++) bits = Math.imul(bits ^ key.charCodeAt(i), 0x01000193);
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  return bits ^ (bits >>> 13);
}
