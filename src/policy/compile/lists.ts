/** Adds to the list under a key, and starts it where there is none. */
export function push<K, V>(lists: Map<K, V[]>, key: K, value: V): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [value]);
  else list.push(value);
}

/** @returns The first index in a sorted list whose value is `wanted` or more. */
export function indexFrom<T>(sorted: readonly T[], wanted: number, numberOf: (one: T) => number): number {
  let [from, to] = [0, sorted.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    const one = sorted[middle];
    if (one !== undefined && numberOf(one) < wanted) from = middle + 1;
    else to = middle;
  }
  return from;
}

export function includes(sorted: readonly number[], wanted: number): boolean {
  return sorted[indexFrom(sorted, wanted, itself)] === wanted;
}

/**
 * A sorted list of numbers with some of them gone and others come: much is copied, little is looked at.
 * @returns The very list where nothing of it changes.
 */
export function replaced<T extends number>(sorted: readonly T[], gone: readonly T[], come: readonly T[]): readonly T[] {
  const left = gone.filter((number) => includes(sorted, number));
  if (left.length + come.length === 0) return sorted;
  const list = [...sorted];
  for (const number of left) list.splice(indexFrom(list, number, itself), 1);
  for (const number of come) list.splice(indexFrom(list, number, itself), 0, number);
  return list;
}

function itself(number: number): number {
  return number;
}
