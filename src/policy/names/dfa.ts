import { push } from '../compile/lists.ts';
import type { DomainPattern } from '../request/domain.ts';

/** What a name is made of, by class: the dot between labels, then all that a label can have. As `NAME_CLASSES` in bpf/lib/dns_layout.h. */
const alphabet = '.-_0123456789abcdefghijklmnopqrstuvwxyz';
const nameClasses = alphabet.length;

/** How many states the datapath numbers. */
const mostStates = 0xffff;

/**
 * Which of a list of patterns a name is one of, found in one pass over the name. State 0 is dead, state 1 the first. The
 * name is in lower case, with dots between labels and none at the end; the root's is `.`.
 */
export interface NameDfa {
  /** By state, by class. */
  readonly next: readonly (readonly number[])[];
  /** By state: the patterns that a name is one of which ends here, as positions in the list, sorted. */
  readonly accepts: readonly (readonly number[])[];
}

/**
 * One place in a pattern: what may come there. `labels` is one label or more; it is at its `start` of a label or in its
 * `middle`. `one` is any character of a label, `any` a run of them, perhaps none.
 */
type Place =
  | { readonly is: 'char'; readonly of: number }
  | { readonly is: 'one' | 'any' }
  | { readonly is: 'labels'; readonly at: 'start' | 'middle' }
  | { readonly is: 'root' }
  | { readonly is: 'end' };

/** The places of all patterns in one row, so that a number names one. */
interface Places {
  readonly all: readonly Place[];
  /** By place: whose it is. */
  readonly owner: readonly number[];
  readonly starts: readonly number[];
}

/** @returns Undefined where there would be more than `limit` states. */
export function buildNameDfa(patterns: readonly DomainPattern[], limit = mostStates): NameDfa | undefined {
  const places = placesOf(patterns);
  const byKey = new Map<string, number>([['', 0]]);
  const subsets: number[][] = [[]];
  const enter = (subset: number[]): number => {
    const key = subset.join();
    const known = byKey.get(key);
    if (known !== undefined) return known;
    byKey.set(key, subsets.length);
    subsets.push(subset);
    return subsets.length - 1;
  };
  const first = closure(places, places.starts);
  // A list of patterns that match nothing has a first state all the same.
  if (first.length === 0) subsets.push([]);
  else enter(first);
  const next: number[][] = [];
  for (let state = 0; state < subsets.length; state++) {
    if (subsets.length > limit) return undefined;
    next.push(step(places, subsets[state] ?? [], enter));
  }
  const accepts = subsets.map((subset) => {
    const ended = subset.filter((at) => places.all[at]?.is === 'end').map((at) => places.owner[at] ?? 0);
    return [...new Set(ended)].sort((a, b) => a - b);
  });
  return { next, accepts };
}

/** What the DFA says of a name, as the datapath reads it: whatever is in no pattern's names leads to the dead state. */
export function runNameDfa({ next, accepts }: NameDfa, name: string): readonly number[] {
  return accepts[runStates(next, name)] ?? [];
}

/** @returns The state behind the last character. */
export function runStates(next: readonly (readonly number[])[], name: string): number {
  let state = 1;
  for (const char of name) {
    const at = alphabet.indexOf(char);
    state = at < 0 ? 0 : (next[state]?.[at] ?? 0);
  }
  return state;
}

function placesOf(patterns: readonly DomainPattern[]): Places {
  const all: Place[] = [];
  const owner: number[] = [];
  const starts: number[] = [];
  for (const [index, { pattern }] of patterns.entries()) {
    const labels = pattern.split('.');
    // No name has an empty label; nor has the root's, which is of `**` alone.
    if (labels.includes('')) continue;
    const add = (place: Place): void => {
      all.push(place);
      owner.push(index);
    };
    starts.push(all.length);
    for (const [i, label] of labels.entries()) {
      if (i > 0) add({ is: 'char', of: 0 });
      if (i === 0 && label === '**') {
        add({ is: 'labels', at: 'start' });
        add({ is: 'labels', at: 'middle' });
        continue;
      }
      // A label is not empty, also where its pattern has nothing but stars.
      if (/^\*+$/.test(label)) add({ is: 'one' });
      // A character that no name has, such as an upper-case one, is at no place of the alphabet.
      for (const char of label) add(char === '*' ? { is: 'any' } : { is: 'char', of: alphabet.indexOf(char) });
    }
    add({ is: 'end' });
    if (pattern !== '**') continue;
    starts.push(all.length);
    add({ is: 'root' });
    add({ is: 'end' });
  }
  return { all, owner, starts };
}

/** All places that can be reached without a character, sorted. */
function closure({ all }: Places, from: Iterable<number>): number[] {
  const found = new Set<number>();
  for (const start of from)
    for (let at = start; !found.has(at); at++) {
      found.add(at);
      const place = all[at];
      // A run may be empty; and after one label there may be no further one.
      if (place?.is !== 'any' && !(place?.is === 'labels' && place.at === 'middle')) break;
    }
  return [...found].sort((a, b) => a - b);
}

/** Runs go the same way with every character of a label, so only characters that stand in a pattern are looked at singly. */
function step(places: Places, subset: readonly number[], enter: (subset: number[]) => number): number[] {
  const runs: number[] = [];
  const byClass = new Map<number, number[]>();
  for (const at of subset) {
    const place = places.all[at];
    if (place?.is === 'char' && place.of >= 0) push(byClass, place.of, at + 1);
    else if (place?.is === 'root') push(byClass, 0, at + 1);
    else if (place?.is === 'any') runs.push(at);
    else if (place?.is === 'one') runs.push(at + 1);
    else if (place?.is === 'labels' && place.at === 'start') runs.push(at + 1);
    else if (place?.is === 'labels') {
      runs.push(at);
      push(byClass, 0, at - 1);
    }
  }
  const go = (reached: readonly number[]): number => (reached.length === 0 ? 0 : enter(closure(places, reached)));
  const otherwise = go(runs);
  return Array.from({ length: nameClasses }, (_, of) => {
    const own = byClass.get(of);
    if (of === 0) return go(own ?? []);
    return own === undefined ? otherwise : go([...own, ...runs]);
  });
}
