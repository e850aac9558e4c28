import type { Program } from '../request/regex.ts';
import { type ByteClasses, classesIn, setKey } from './classes.ts';

/** A deterministic automaton over classes of bytes. State 0 is the first. */
export interface Automaton {
  /** By state and class, `next[state * classes + class]`; every state has a next one for every class. */
  readonly next: readonly number[];
  /** By state: which of the texts that were asked for a text is that ends there, in order. */
  readonly found: readonly (readonly number[])[];
}

/** Why tables are not made: the message goes to whoever asked for too much. */
export class TooManyStates extends Error {}

/** What an automaton may cost: its states, and steps on the way to them. */
export interface Budget {
  states: number;
  work: number;
}

/**
 * All of the texts that are asked for of one part of a request, looked for at once: the subset construction.
 * @param programs Of each, the automaton that it is. @param budget Is taken from.
 * @throws {TooManyStates}
 */
export function determinize(programs: readonly Program[], classes: ByteClasses, budget: Budget): Automaton {
  const all = new Union(programs, classes);
  const next: number[] = [];
  const found: (readonly number[])[] = [];
  const states: (readonly number[])[] = [];
  const known = new Map<string, number>();
  const add = (set: readonly number[], isStart: boolean): number => {
    const key = set.join();
    const before = isStart ? undefined : known.get(key);
    if (before !== undefined) return before;
    if (--budget.states < 0) throw new TooManyStates('asks for more than the datapath has room for');
    found.push(all.foundAt(set, isStart));
    // The start is not like a state of the same steps: only there is the text's beginning.
    if (!isStart) known.set(key, states.length);
    return states.push(set) - 1;
  };
  add(all.start(), true);
  for (let state = 0; state < states.length; state++) {
    const own = states[state] ?? [];
    // Most bytes lead nowhere: to where nothing is found any more, which is a state too.
    const targets = new Array<number>(classes.count).fill(-1);
    for (const [of, steps] of all.stepsFrom(own)) {
      const set = all.closureOf(steps, false);
      budget.work -= steps.length + set.length;
      targets[of] = add(set, false);
    }
    budget.work -= own.length;
    if (budget.work < 0) throw new TooManyStates('asks for more than can be made out in a moment');
    if (targets.includes(-1)) {
      const dead = add([], false);
      for (const [of, target] of targets.entries()) if (target < 0) targets[of] = dead;
    }
    next.push(...targets);
  }
  return { next, found };
}

/** Several automata side by side. A set of their steps is a sorted list of numbers. */
class Union {
  /** By step: the classes that lead on, and to which step; the two ways of a split; or which text is found. */
  readonly #on: (readonly number[] | undefined)[] = [];
  readonly #to: number[] = [];
  readonly #split: (readonly [number, number] | undefined)[] = [];
  readonly #kind: ('set' | 'split' | 'begin' | 'end' | 'match')[] = [];
  readonly #text: number[] = [];
  readonly #starts: number[] = [];
  /** When a step was put into a closure last: by the number of the closure. */
  readonly #mark: Uint32Array;
  #round = 0;

  constructor(programs: readonly Program[], classes: ByteClasses) {
    const sets = new Map<string, readonly number[]>();
    for (const [text, { steps, start }] of programs.entries()) {
      const first = this.#kind.length;
      this.#starts.push(first + start);
      for (const step of steps) {
        this.#kind.push(step.op);
        this.#text.push(text);
        this.#to.push('next' in step ? first + step.next : 0);
        this.#split.push(step.op === 'split' ? [first + step.a, first + step.b] : undefined);
        if (step.op !== 'set') this.#on.push(undefined);
        else {
          const key = setKey(step.set);
          const on = sets.get(key) ?? classesIn(step.set, classes);
          sets.set(key, on);
          this.#on.push(on);
        }
      }
    }
    this.#mark = new Uint32Array(this.#kind.length);
  }

  start(): readonly number[] {
    return this.closureOf(this.#starts, true);
  }

  /** By class, the steps that lead on from some of these. */
  stepsFrom(set: readonly number[]): Map<number, number[]> {
    const into = new Map<number, number[]>();
    for (const step of set)
      for (const one of this.#on[step] ?? []) {
        const steps = into.get(one);
        if (steps === undefined) into.set(one, [this.#to[step] ?? 0]);
        else steps.push(this.#to[step] ?? 0);
      }
    return into;
  }

  /** Which texts are found where a text ends in these steps. */
  foundAt(set: readonly number[], isStart: boolean): readonly number[] {
    const texts = new Set<number>();
    for (const step of this.#reach(set, isStart, true))
      if (this.#kind[step] === 'match') texts.add(this.#text[step] ?? 0);
    return [...texts].sort((a, b) => a - b);
  }

  /** Of the steps that are reached without another byte, those that matter later. */
  closureOf(from: readonly number[], atStart: boolean): readonly number[] {
    const kept = this.#reach(from, atStart, false).filter((step) => {
      const kind = this.#kind[step];
      return kind === 'set' || kind === 'end' || kind === 'match';
    });
    return kept.sort((a, b) => a - b);
  }

  #reach(from: readonly number[], atStart: boolean, atEnd: boolean): number[] {
    const round = ++this.#round;
    const reached: number[] = [];
    const todo = [...from];
    for (let step = todo.pop(); step !== undefined; step = todo.pop()) {
      if (this.#mark[step] === round) continue;
      this.#mark[step] = round;
      reached.push(step);
      const kind = this.#kind[step];
      if (kind === 'split') todo.push(...(this.#split[step] ?? []));
      else if ((kind === 'begin' && atStart) || (kind === 'end' && atEnd)) todo.push(this.#to[step] ?? 0);
    }
    return reached;
  }
}
