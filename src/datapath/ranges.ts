/** Who has which part of an array. */
export class Ranges {
  readonly #first: number;
  readonly #end: () => number;
  /** Length by start, in the order of the starts. */
  #taken: { readonly start: number; readonly length: number }[] = [];

  /** @param first What may be given. @param end The first that may not; it may come to be more. */
  constructor(first: number, end: () => number) {
    this.#first = first;
    this.#end = end;
  }

  /** How many are taken. */
  get used(): number {
    return this.#taken.reduce((sum, { length }) => sum + length, 0);
  }

  /** Takes the first room for so many in a row. @returns Where it begins; undefined where there is none. */
  take(length: number): number | undefined {
    return this.#take(length, this.#end());
  }

  /** @returns Where the end would have to be for all of these to be taken, one after the other. */
  reach(lengths: readonly number[]): number {
    const imagined = new Ranges(this.#first, this.#end);
    imagined.#taken = [...this.#taken];
    for (const length of lengths) imagined.#take(length, Number.POSITIVE_INFINITY);
    const last = imagined.#taken.at(-1);
    return last === undefined ? this.#first : last.start + last.length;
  }

  #take(length: number, end: number): number | undefined {
    let start = this.#first;
    let at = 0;
    for (const taken of this.#taken) {
      if (taken.start - start >= length) break;
      start = taken.start + taken.length;
      at++;
    }
    if (start + length > end) return undefined;
    if (length > 0) this.#taken.splice(at, 0, { start, length });
    return start;
  }

  /** Takes what somebody has already; what is taken twice stays taken once. */
  claim(start: number, length: number): void {
    if (length === 0 || this.#taken.some((taken) => taken.start === start)) return;
    this.#taken.push({ start, length });
    this.#taken.sort((a, b) => a.start - b.start);
  }

  /** Gives back what begins there. */
  free(start: number): void {
    this.#taken = this.#taken.filter((taken) => taken.start !== start);
  }
}
