/** Lets a bounded number in at once; the others wait their turn, which goes round among those who ask. */
export class Slots {
  #free: number;
  /** By who asks, who is next first. Nobody who waits for nothing is in it. */
  readonly #waiting = new Map<string, Set<() => void>>();

  constructor(count: number) {
    this.#free = count;
  }

  get waiting(): number {
    return [...this.#waiting.values()].reduce((sum, { size }) => sum + size, 0);
  }

  /**
   * @param who Asks: one who asks for a thousand places does not keep another waiting for his one.
   * @returns A function that gives the place back; calling it again does nothing.
   * @throws The signal's reason, when it aborts before there is a place.
   */
  async take(signal: AbortSignal, who = ''): Promise<() => void> {
    signal.throwIfAborted();
    if (this.#free > 0) this.#free--;
    else await this.#turn(signal, who);
    let given = true;
    return () => {
      if (!given) return;
      given = false;
      const next = this.#next();
      if (next === undefined) this.#free++;
      else next();
    };
  }

  #next(): (() => void) | undefined {
    const [first] = this.#waiting;
    if (first === undefined) return undefined;
    const [who, queue] = first;
    const [enter] = queue;
    // To the end of the round, behind all others who wait.
    this.#waiting.delete(who);
    if (queue.size > 1) this.#waiting.set(who, queue);
    return enter;
  }

  #turn(signal: AbortSignal, who: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const forget = () => {
        const queue = this.#waiting.get(who);
        queue?.delete(enter);
        if (queue?.size === 0) this.#waiting.delete(who);
      };
      const leave = () => {
        forget();
        reject(signal.reason);
      };
      const queue = this.#waiting.get(who) ?? new Set();
      this.#waiting.set(who, queue);
      const enter = () => {
        queue.delete(enter);
        signal.removeEventListener('abort', leave);
        resolve();
      };
      queue.add(enter);
      signal.addEventListener('abort', leave, { once: true });
    });
  }
}
