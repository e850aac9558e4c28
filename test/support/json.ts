import fc from 'fast-check';

/** Names that objects of policies have, so that random keys sometimes are some. */
const words = [
  'spec',
  'metadata',
  'rules',
  'from',
  'to',
  'name',
  'namespace',
  'matchLabels',
  'ports',
  '__proto__',
  'x',
];
const leaf = fc.oneof(
  fc.constantFrom(null, true, false, 0, -1, 80, 65536, 1.5, '', '*', '80', '10.0.0.0/8', 'ALLOW', 'Deny'),
  fc.string({ maxLength: 6 }),
);
const anything = fc.oneof(
  leaf,
  fc.array(leaf, { maxLength: 3 }),
  fc.dictionary(fc.constantFrom(...words), leaf, { maxKeys: 3 }),
  fc.jsonValue({ maxDepth: 3 }),
);

type Mutation = readonly [at: number, how: 'replace' | 'delete' | 'add', key: string, value: unknown];

/** JSON that is nearly `whole`: up to four of its values are replaced, taken out, or given company. */
export function mutatedJson(whole: unknown): fc.Arbitrary<unknown> {
  const mutation: fc.Arbitrary<Mutation> = fc.tuple(
    fc.nat(),
    fc.constantFrom('replace' as const, 'delete' as const, 'add' as const),
    fc.constantFrom(...words),
    anything,
  );
  const near = fc.array(mutation, { minLength: 1, maxLength: 4 }).map((mutations) => mutations.reduce(mutate, whole));
  return fc.oneof({ weight: 9, arbitrary: near }, { weight: 1, arbitrary: anything });
}

function mutate(whole: unknown, [at, how, key, value]: Mutation): unknown {
  const places = placesOf(whole);
  const place = places[at % places.length] ?? [];
  return change(whole, place, how, key, value);
}

type Place = readonly (string | number)[];

function placesOf(value: unknown, here: Place = []): Place[] {
  if (typeof value !== 'object' || value === null) return [here];
  const entries: [string | number, unknown][] = Array.isArray(value) ? [...value.entries()] : Object.entries(value);
  return [here, ...entries.flatMap(([key, member]) => placesOf(member, [...here, key]))];
}

function change(value: unknown, place: Place, how: Mutation[1], key: string, put: unknown): unknown {
  const [first, ...rest] = place;
  if (first === undefined) {
    if (how !== 'add') return put;
    if (Array.isArray(value)) return [...value, put];
    return typeof value === 'object' && value !== null ? { ...value, [key]: put } : put;
  }
  if (Array.isArray(value)) {
    if (how === 'delete' && rest.length === 0) return value.filter((_, index) => index !== first);
    return value.map((member, index) => (index === first ? change(member, rest, how, key, put) : member));
  }
  if (typeof value !== 'object' || value === null) return put;
  const entries = Object.entries(value);
  const kept = how === 'delete' && rest.length === 0 ? entries.filter(([name]) => name !== first) : entries;
  return Object.fromEntries(
    kept.map(([name, member]) => [name, name === first ? change(member, rest, how, key, put) : member]),
  );
}
