import { MyelinError } from '../../model/error.ts';

interface Used {
  has(number: number): boolean;
  readonly size: number;
}

/**
 * Gives every key a number and keeps it. A number that falls free is not given to another key: somewhere in the datapath
 * (a packet's mark, a proven tunnel, an event on its way) it may still stand for the old one.
 */
export class Numbers {
  readonly #byKey: ReadonlyMap<string, number>;
  readonly #used: Used;
  readonly #first: number;
  readonly #last: number;
  #next: number;

  /**
   * @param previous What the numbers stand for so far.
   * @param next The number to try next.
   * @param used The numbers of `previous`, where the caller has them by number already.
   * @param range First and last number there is; after the last the first that is not in use comes again.
   */
  constructor(
    previous: ReadonlyMap<string, number>,
    next: number,
    range: { first: number; last: number },
    used: Used = new Set(previous.values()),
  ) {
    this.#byKey = previous;
    this.#used = used;
    this.#first = range.first;
    this.#last = range.last;
    this.#next = next;
  }

  get next(): number {
    return this.#next;
  }

  /**
   * @returns A number for each key; new ones in the order of the keys sorted, so that equal inputs give equal numbers.
   * @throws {MyelinError} `NumbersExhausted`
   */
  assign(keys: Iterable<string>): Map<string, number> {
    const assigned = new Map<string, number>();
    const unknown: string[] = [];
    for (const key of keys) {
      const known = this.#byKey.get(key);
      if (known === undefined) unknown.push(key);
      else assigned.set(key, known);
    }
    for (const key of unknown.sort()) assigned.set(key, this.fresh());
    return assigned;
  }

  /** @throws {MyelinError} `NumbersExhausted` */
  fresh(): number {
    for (let tries = 0; tries <= this.#used.size; tries++) {
      const number = this.#next;
      this.#next = number === this.#last ? this.#first : number + 1;
      if (!this.#used.has(number)) return number;
    }
    throw new MyelinError('NumbersExhausted', `all numbers from ${this.#first} to ${this.#last} are in use`);
  }
}
