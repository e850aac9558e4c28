import type { Program } from '../request/regex.ts';
import type { CharSet } from '../request/regex-sets.ts';

/** Bytes that the same sets of some automata have are of one class. */
export interface ByteClasses {
  /** By byte. */
  readonly of: Uint8Array;
  readonly count: number;
}

/** Why a rule cannot be decided by bytes; the message goes to its author. */
export class NotByBytes extends Error {}

/** The classes that the steps of these automata tell apart. @throws {NotByBytes} */
export function classesOf(programs: Iterable<Program>): ByteClasses {
  const of = new Uint8Array(256);
  let count = 1;
  const seen = new Set<string>();
  for (const { steps } of programs)
    for (const step of steps) {
      if (step.op !== 'set') continue;
      const key = setKey(step.set);
      if (seen.has(key)) continue;
      seen.add(key);
      count = refine(of, count, bytesIn(step.set));
    }
  return { of, count };
}

/** Cuts each class in those bytes of it that are in a set, and those that are not. */
function refine(of: Uint8Array, count: number, within: readonly boolean[]): number {
  const inside = new Map<number, number>();
  const outside = new Set<number>();
  for (const [byte, own] of of.entries()) if (within[byte] !== true) outside.add(own);
  let next = count;
  for (const [byte, own] of of.entries()) {
    if (within[byte] !== true || !outside.has(own)) continue;
    const cut = inside.get(own) ?? next++;
    inside.set(own, cut);
    of[byte] = cut;
  }
  return next;
}

/** The classes whose bytes are in a set. */
export function classesIn(set: CharSet, { of, count }: ByteClasses): number[] {
  const within = bytesIn(set);
  const found = new Array<boolean>(count).fill(false);
  for (const [byte, own] of of.entries()) if (within[byte] === true) found[own] = true;
  return found.flatMap((is, own) => (is ? [own] : []));
}

/**
 * Which bytes are in a set of code points. A byte from 0x80 is a piece of a character, and nobody knows of which: a set must
 * have all of them or none.
 */
function bytesIn({ ranges, negated }: CharSet): boolean[] {
  const within = new Array<boolean>(256).fill(negated);
  for (const [from, to] of ranges) for (let byte = from; byte <= Math.min(to, 0x7f); byte++) within[byte] = !negated;
  let next = 0x80;
  let covered = 0;
  for (const [from, to] of ranges.filter(([, last]) => last >= 0x80).sort(([a], [b]) => a - b)) {
    covered += Math.max(0, to - Math.max(from, next) + 1);
    next = Math.max(next, to + 1);
  }
  if (covered !== 0 && covered !== 0x11_0000 - 0x80) throw new NotByBytes('asks for characters that are not of ASCII');
  return within.fill((covered !== 0) !== negated, 0x80);
}

/** Equal for equal sets. */
export function setKey(set: CharSet): string {
  const known = keys.get(set);
  if (known !== undefined) return known;
  const key = `${set.negated} ${set.ranges.join(' ')}`;
  keys.set(set, key);
  return key;
}

const keys = new WeakMap<CharSet, string>();
