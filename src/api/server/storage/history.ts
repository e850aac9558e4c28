import type { AnyObject } from '../../json.ts';
import type { EventType } from './database.ts';

/** One change, as watchers see it. */
export interface StoreEvent {
  readonly revision: number;
  readonly type: EventType;
  readonly resource: string;
  readonly key: string;
  readonly object: AnyObject;
  /** `object` in JSON. */
  readonly json: string;
  readonly previous: AnyObject | undefined;
}

/** The last changes, bounded by number and by bytes. */
export class History {
  readonly #limit: { readonly events: number; readonly bytes: number };
  #events: StoreEvent[] = [];
  #start = 0;
  #bytes = 0;
  /** The newest revision that is no longer here: a watch can start from it, and from nothing older. */
  #floor: number;

  /** @param floor The revision that the first event to come follows. */
  constructor(limit: { readonly events: number; readonly bytes: number }, floor: number) {
    this.#limit = limit;
    this.#floor = floor;
  }

  /** The oldest resourceVersion that a watch can start from. */
  get floor(): number {
    return this.#floor;
  }

  push(event: StoreEvent): void {
    this.#events.push(event);
    this.#bytes += event.json.length;
    while (this.#events.length - this.#start > this.#limit.events || this.#bytes > this.#limit.bytes) this.#shift();
    // Compacted now and then only: dropping from the front of an array one by one would cost its length each time.
    if (this.#start > this.#limit.events) {
      this.#events = this.#events.slice(this.#start);
      this.#start = 0;
    }
  }

  #shift(): void {
    const oldest = this.#events[this.#start];
    if (oldest === undefined) return;
    this.#bytes -= oldest.json.length;
    this.#floor = oldest.revision;
    this.#start++;
  }

  /**
   * The events after `revision`, oldest first.
   * @returns undefined where some of them are no longer known.
   */
  after(revision: number): StoreEvent[] | undefined {
    if (revision < this.#floor) return undefined;
    let low = this.#start;
    let high = this.#events.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#events[middle]?.revision ?? 0) <= revision) low = middle + 1;
      else high = middle;
    }
    return this.#events.slice(low);
  }
}
