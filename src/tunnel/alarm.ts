const farMs = 60_000;
const stepMs = 8192;

/**
 * @returns How long to wait for what is due in `ms`. What is far off is looked at once before, in steps that thousands of
 *   tunnels share: a list of timers for each millisecond costs more than the timers. Node's end at 2^31 ms.
 */
function timerMs(ms: number): number {
  if (ms < farMs) return Math.max(0, ms) + 1;
  return Math.min(Math.floor(ms / stepMs) * stepMs, 0x7fff_ffff);
}

/** One timer that is moved often, and mostly to where it is already. */
export class Alarm {
  readonly #now: () => number;
  readonly #onTime: () => void;
  #timer: NodeJS.Timeout | undefined;
  #deadline: number | undefined;

  /** @param now Unix milliseconds. @param onTime Sets the next deadline; at times it is told before the last one has come. */
  constructor(now: () => number, onTime: () => void) {
    this.#now = now;
    this.#onTime = onTime;
  }

  /** @param deadline Unix milliseconds, in place of the one that was set; undefined: none. */
  set(deadline: number | undefined): void {
    if (deadline === this.#deadline) return;
    clearTimeout(this.#timer);
    this.#deadline = deadline;
    if (deadline === undefined) return;
    this.#timer = setTimeout(
      () => {
        this.#deadline = undefined;
        this.#onTime();
      },
      timerMs(deadline - this.#now()),
    );
    this.#timer.unref();
  }
}
