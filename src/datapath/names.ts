import type { NameMatcher } from '../policy/names/matcher.ts';
import { matcherFlags } from './layouts.ts';
import type { DatapathMaps } from './objects.ts';
import type { Transaction } from './transaction.ts';

export type NameMaps = Pick<DatapathMaps, 'nameMatchers' | 'nameStates' | 'nameAccepts' | 'namePatterns'>;

/** Writes a matcher that is not there yet, its head last: an id without it is of none. @throws {KernelError} `Errno` */
export function putMatcher(maps: NameMaps, transaction: Transaction, matcher: NameMatcher): void {
  const { id, states, accepts, lenient, learns, asks } = matcher;
  transaction.add(
    maps.nameStates,
    states.map(
      ({ next, accept }, state) =>
        [
          { matcher: id, state },
          { next, accept },
        ] as const,
    ),
  );
  transaction.add(
    maps.nameAccepts,
    accepts.map(
      ({ sets: { admin: adminSet, network: networkSet, mesh: meshSet }, patterns }, accept) =>
        [
          { matcher: id, accept },
          { adminSet, networkSet, meshSet, count: patterns.length, patterns },
        ] as const,
    ),
  );
  transaction.put(maps.nameMatchers, id, {
    flags: (learns ? matcherFlags.learns : 0) | (asks ? matcherFlags.asks : 0),
    adminSet: lenient.admin,
    networkSet: lenient.network,
    meshSet: lenient.mesh,
  });
}

export function removeMatcher(maps: NameMaps, transaction: Transaction, { id, states, accepts }: NameMatcher): void {
  transaction.remove(maps.nameMatchers, id);
  for (const state of states.keys()) transaction.remove(maps.nameStates, { matcher: id, state });
  for (const accept of accepts.keys()) transaction.remove(maps.nameAccepts, { matcher: id, accept });
}

/** Every matcher in the maps, after a restart: known by what there is to be removed. */
export function restoreMatchers(maps: NameMaps): Map<number, NameMatcher> {
  const found = new Map<number, { states: number; accepts: number }>();
  const note = (matcher: number, { state = 0, accept = 0 }): void => {
    const { states, accepts } = found.get(matcher) ?? { states: 0, accepts: 0 };
    found.set(matcher, { states: Math.max(states, state), accepts: Math.max(accepts, accept) });
  };
  for (const [id] of maps.nameMatchers.entries()) note(id, {});
  for (const [{ matcher, state }] of maps.nameStates.entries()) note(matcher, { state: state + 1 });
  for (const [{ matcher, accept }] of maps.nameAccepts.entries()) note(matcher, { accept: accept + 1 });
  const none = { admin: 0, network: 0, mesh: 0 };
  return new Map(
    [...found].map(([id, { states, accepts }]) => [
      id,
      {
        id,
        key: `restored ${id}`,
        learns: false,
        asks: false,
        lenient: none,
        states: Array.from({ length: states }, () => ({ next: [], accept: 0 })),
        accepts: Array.from({ length: accepts }, () => ({ sets: none, patterns: [] })),
      },
    ]),
  );
}
