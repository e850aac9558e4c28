type Path = readonly PropertyKey[];

/**
 * Says which of two places in an object a reader comes to first, as its keys are written; what is missing is behind all
 * that is there.
 * @param root What the paths begin at, as JSON or YAML gives it.
 */
export function byPlace(root: unknown): (a: Path, b: Path) => number {
  return (a, b) => compare(placeOf(a, root), placeOf(b, root));
}

/** At each level, the how many-eth it is. */
function placeOf(path: Path, root: unknown): number[] {
  const place: number[] = [];
  let here = root;
  for (const part of path) {
    if (typeof here !== 'object' || here === null) break;
    const index = Array.isArray(here) ? Number(part) : Object.keys(here).indexOf(String(part));
    place.push(index < 0 ? Number.MAX_SAFE_INTEGER : index);
    here = Reflect.get(here, part);
  }
  return place;
}

function compare(a: readonly number[], b: readonly number[]): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}
