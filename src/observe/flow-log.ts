import type { FlowEvent } from '../model/flow.ts';
import { type FlowFilter, matchesFilter } from './filter.ts';

/** What was lost before anyone could see it, by cause (design promise 8). */
export interface FlowLosses {
  /** The kernel's ring buffer was full. */
  readonly ring: number;
  /** Overwritten here by newer flows, which is how a bounded log works; followers got them. */
  readonly overwritten: number;
  /** A follower read too slowly and was skipped ahead. */
  readonly slowFollower: number;
  /** The proxy had nobody to say them to, and no room to keep them. */
  readonly proxy: number;
}

type Follower = (flow: FlowEvent) => void;

/** The last flows of this node, in memory, bounded. */
export class FlowLog {
  readonly #capacity: number;
  readonly #ringLosses: () => number;
  readonly #followers = new Set<Follower>();
  #flows: FlowEvent[] = [];
  /** Where the oldest flow is once the log is full. */
  #next = 0;
  #overwritten = 0;
  #slow = 0;
  #proxy = 0;

  /**
   * @param options.capacity Flows kept.
   * @param options.ringLosses Reads the datapath's count of events that found the ring full.
   */
  constructor(options: { capacity: number; ringLosses: () => number }) {
    this.#capacity = options.capacity;
    this.#ringLosses = options.ringLosses;
  }

  push(flow: FlowEvent): void {
    if (this.#flows.length < this.#capacity) this.#flows.push(flow);
    else {
      this.#flows[this.#next] = flow;
      this.#next = (this.#next + 1) % this.#capacity;
      this.#overwritten++;
    }
    for (const follower of this.#followers) follower(flow);
  }

  /** The newest `limit` flows that match, oldest first. */
  recent(filter: FlowFilter, limit: number): FlowEvent[] {
    const found: FlowEvent[] = [];
    for (let i = 0; i < this.#flows.length && found.length < limit; i++) {
      const index = (this.#next - 1 - i + 2 * this.#flows.length) % this.#flows.length;
      const flow = this.#flows[index];
      if (flow !== undefined && matchesFilter(flow, filter)) found.push(flow);
    }
    return found.reverse();
  }

  /** @returns Stops following. */
  follow(filter: FlowFilter, follower: Follower): () => void {
    const matching: Follower = (flow) => {
      if (matchesFilter(flow, filter)) follower(flow);
    };
    this.#followers.add(matching);
    return () => this.#followers.delete(matching);
  }

  /** A follower says that it had to leave out a flow. */
  countSlow(): void {
    this.#slow++;
  }

  /** The proxy says how many flows it could not keep. */
  countProxy(lost: number): void {
    this.#proxy += lost;
  }

  get losses(): FlowLosses {
    return { ring: this.#ringLosses(), overwritten: this.#overwritten, slowFollower: this.#slow, proxy: this.#proxy };
  }
}
