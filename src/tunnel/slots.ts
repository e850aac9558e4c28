import type { Cancel } from './handshake/cancel.ts';
import type { HandshakeError } from './handshake/error.ts';

/** Gives a place back; calling it again does nothing. */
export type Leave = () => void;

interface Turn {
  readonly enter: () => void;
}

/** Lets a bounded number in at once; the others wait their turn, which goes round among those who ask. */
export class Slots {
  #free: number;
  /** By who asks, who is next first. Nobody who waits for nothing is in it. */
  readonly #waiting = new Map<string, Set<Turn>>();

  constructor(count: number) {
    this.#free = count;
  }

  get waiting(): number {
    return [...this.#waiting.values()].reduce((sum, { size }) => sum + size, 0);
  }

  /**
   * @param who Asks: one who asks for a thousand places does not keep another waiting for his one.
   * @returns How to leave the place: at once where one is free, else when there is one. Rejects with the reason when it is
   *   cancelled before.
   * @throws {HandshakeError} The reason, where it has been cancelled.
   */
  take(cancel: Cancel, who = ''): Leave | Promise<Leave> {
    if (cancel.reason !== undefined) throw cancel.reason;
    if (this.#free === 0) return this.#turn(cancel, who);
    this.#free--;
    return this.#place();
  }

  #place(): Leave {
    let given = true;
    return () => {
      if (!given) return;
      given = false;
      const next = this.#next();
      if (next === undefined) this.#free++;
      else next.enter();
    };
  }

  #next(): Turn | undefined {
    const [first] = this.#waiting;
    if (first === undefined) return undefined;
    const [who, queue] = first;
    const [turn] = queue;
    // To the end of the round, behind all others who wait.
    this.#waiting.delete(who);
    if (queue.size > 1) this.#waiting.set(who, queue);
    return turn;
  }

  #turn(cancel: Cancel, who: string): Promise<Leave> {
    return new Promise((resolve, reject) => {
      const queue = this.#waiting.get(who) ?? new Set();
      this.#waiting.set(who, queue);
      const turn = {
        enter: () => {
          queue.delete(turn);
          cancel.listen(undefined);
          resolve(this.#place());
        },
        cancelled: (reason: HandshakeError) => {
          queue.delete(turn);
          if (queue.size === 0 && this.#waiting.get(who) === queue) this.#waiting.delete(who);
          reject(reason);
        },
      };
      queue.add(turn);
      cancel.listen(turn);
    });
  }
}
