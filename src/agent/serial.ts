import type { Logger } from 'pino';

/** A task that is run again after every `schedule`, never twice at once; what is scheduled while it runs is one more run. */
export class Serial {
  readonly #task: () => Promise<unknown>;
  readonly #logger: Logger;
  #started = false;
  #wanted = false;
  #running: Promise<void> | undefined;
  #error: string | undefined;

  constructor(task: () => Promise<unknown>, logger: Logger) {
    this.#task = task;
    this.#logger = logger;
  }

  /** Why the last run failed. */
  get error(): string | undefined {
    return this.#error;
  }

  /** Runs it for the first time. */
  async start(): Promise<void> {
    this.#started = true;
    this.schedule();
    await this.#running;
  }

  /** Before `start` it only remembers. */
  schedule(): void {
    this.#wanted = true;
    if (this.#started) this.#running ??= this.#run();
  }

  async #run(): Promise<void> {
    await new Promise((turn) => setImmediate(turn));
    while (this.#wanted) {
      this.#wanted = false;
      try {
        await this.#task();
        this.#error = undefined;
      } catch (error) {
        this.#error = error instanceof Error ? error.message : String(error);
        this.#logger.error({ err: error }, 'a change could not be carried out');
      }
    }
    this.#running = undefined;
  }
}
