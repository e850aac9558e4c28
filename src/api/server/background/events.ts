import { stringOr } from '../../json.ts';
import type { Store } from '../storage/store.ts';

const kept = 60 * 60 * 1000;
const sweepEvery = 60 * 1000;

/** Events are news: they go an hour after they were last seen. */
export class EventSweeper {
  readonly #timer: NodeJS.Timeout;

  constructor(store: Store) {
    this.#timer = setInterval(() => sweepEvents(store, Date.now()), sweepEvery);
    this.#timer.unref();
  }

  close(): void {
    clearInterval(this.#timer);
  }
}

/** @param now Unix milliseconds. */
export function sweepEvents(store: Store, now: number): void {
  for (const { key, object } of store.list('/events')) {
    const times = [object.lastTimestamp, object.eventTime, object.metadata.creationTimestamp];
    const last = Math.max(...times.map((time) => Date.parse(stringOr(time, '')) || 0));
    if (now - last > kept) store.remove('/events', key);
  }
}
