import { type Result, refusal, success } from '../../model/result.ts';
import type { CharSet } from './regex-sets.ts';
import { type Node, parse, RegexError } from './regex-syntax.ts';

/** A regular expression that is matched against whole texts, in time linear in the text whatever the expression is. */
export interface Regex {
  /** Whether the expression matches all of the text, by code points. */
  matches(text: string): boolean;
}

export type Step =
  | { readonly op: 'set'; readonly set: CharSet; next: number }
  | { readonly op: 'split'; a: number; b: number }
  | { readonly op: 'begin' | 'end'; next: number }
  | { readonly op: 'match' };

/** RE2 has a bound on memory instead; a policy's expression that needs more states than this is not meant for a person. */
const maxSteps = 20_000;

/**
 * Reads an expression of RE2's syntax (https://github.com/google/re2/wiki/Syntax), without what a request's texts do not
 * need: Unicode classes, word boundaries, and any flags but `i` and `s`.
 * @returns Why it cannot be read, where it cannot.
 */
export function parseRegex(text: string): Result<Regex, string> {
  try {
    const program = compile(parse(text));
    return success({ matches: (value) => run(program, value) });
  } catch (error) {
    if (error instanceof RegexError) return refusal(error.message);
    throw error;
  }
}

/** Steps that a text leads through from `start`, all ways at once: Thompson's automaton. */
export interface Program {
  readonly steps: readonly Step[];
  readonly start: number;
}

/**
 * Thompson's construction, from the end to the start.
 * @throws {RegexError} where it would be too large
 */
export function compile(root: Node): Program {
  const steps: Step[] = [];
  const add = (step: Step): number => {
    if (steps.length >= maxSteps) throw new RegexError('is too large');
    return steps.push(step) - 1;
  };
  let visits = 0;
  /** Emits `node` in front of the step `next`; returns where it starts. */
  const emit = (node: Node, next: number): number => {
    // What matches nothing but the empty text needs no steps, however often it is repeated.
    if (++visits > 4 * maxSteps) throw new RegexError('is too large');
    switch (node.is) {
      case 'empty':
        return next;
      case 'never':
        return add({ op: 'set', set: { ranges: [], negated: false }, next });
      case 'set':
        return add({ op: 'set', set: node.set, next });
      case 'begin':
      case 'end':
        return add({ op: node.is, next });
      case 'sequence':
        return node.parts.reduceRight((after, part) => emit(part, after), next);
      case 'choice': {
        const [first, ...others] = node.parts.map((part) => emit(part, next));
        return others.reduce((a, b) => add({ op: 'split', a, b }), first ?? next);
      }
      case 'repeat': {
        let after = next;
        if (node.max === undefined) {
          const split: Step & { op: 'split' } = { op: 'split', a: next, b: next };
          after = add(split);
          split.a = emit(node.part, after);
        } else
          for (let n = node.min; n < node.max; n++) after = add({ op: 'split', a: emit(node.part, after), b: next });
        for (let n = 0; n < node.min; n++) after = emit(node.part, after);
        return after;
      }
    }
  };
  const start = emit(root, add({ op: 'match' }));
  return { steps, start };
}

/** All states at once, a code point at a time. */
function run({ steps, start }: Program, text: string): boolean {
  const points = Array.from(text, (char) => char.codePointAt(0) ?? 0);
  let states = closure(steps, [start], 0, points.length);
  for (const [at, point] of points.entries()) {
    const next: number[] = [];
    for (const state of states) {
      const step = steps[state];
      if (step?.op === 'set' && contains(step.set, point)) next.push(step.next);
    }
    if (next.length === 0) return false;
    states = closure(steps, next, at + 1, points.length);
  }
  return [...states].some((state) => steps[state]?.op === 'match');
}

function closure(steps: readonly Step[], from: readonly number[], at: number, length: number): Set<number> {
  const found = new Set<number>();
  const todo = [...from];
  for (let state = todo.pop(); state !== undefined; state = todo.pop()) {
    if (found.has(state)) continue;
    found.add(state);
    const step = steps[state];
    if (step?.op === 'split') todo.push(step.a, step.b);
    else if (step?.op === 'begin' && at === 0) todo.push(step.next);
    else if (step?.op === 'end' && at === length) todo.push(step.next);
  }
  return found;
}

function contains({ ranges, negated }: CharSet, point: number): boolean {
  return ranges.some(([from, to]) => from <= point && point <= to) !== negated;
}
