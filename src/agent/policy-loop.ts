import type { Logger } from 'pino';
import type { ClusterView, PolicyImage } from '../policy/image.ts';

export interface PolicyLoopDeps {
  readonly view: () => ClusterView;
  readonly compile: (view: ClusterView, previous: PolicyImage) => PolicyImage;
  /** What is in force; after a restart, what the process before this one left in force. */
  readonly inForce: () => PolicyImage;
  /** Puts an image in force, whole; rejects where it does not fit, with what was in force still in force. */
  readonly apply: (image: PolicyImage) => Promise<unknown>;
  /** After an image is in force. */
  readonly onApplied: () => void;
  readonly logger: Logger;
}

/**
 * Keeps the datapath at the newest view of the cluster. Changes that arrive together, or while a revision is being
 * written, become one revision; while a revision is refused the one before it stays in force, the reason is kept to be
 * shown, and the next change tries again.
 */
export class PolicyLoop {
  readonly #deps: PolicyLoopDeps;
  #refused: string | undefined;
  #started = false;
  #wanted = 0;
  #done = 0;
  #running: Promise<void> | undefined;

  constructor(deps: PolicyLoopDeps) {
    this.#deps = deps;
  }

  /** Why the newest revision is not in force. */
  get refused(): string | undefined {
    return this.#refused;
  }

  /** To be called once the first lists of everything are in: a half-known cluster must not be compiled. */
  async start(): Promise<void> {
    this.#started = true;
    await this.flush();
  }

  /** The view changed; a revision follows in the next turn of the event loop. */
  schedule(): void {
    this.#wanted++;
    if (this.#started) this.#running ??= this.#run();
  }

  /** Resolves when all that the view holds now is in force, or refused. Before `start` it does nothing. */
  async flush(): Promise<void> {
    this.schedule();
    await this.#running;
  }

  /** What is in force stays so; nothing new follows. */
  async stop(): Promise<void> {
    this.#started = false;
    await this.#running;
  }

  async #run(): Promise<void> {
    // Changes come in bursts of single events: the rest of this turn's belong into this revision.
    await new Promise((turn) => setImmediate(turn));
    while (this.#started && this.#done < this.#wanted) {
      this.#done = this.#wanted;
      await this.#revise();
    }
    this.#running = undefined;
  }

  async #revise(): Promise<void> {
    const { view, compile, inForce, apply, onApplied, logger } = this.#deps;
    try {
      await apply(compile(view(), inForce()));
      if (this.#refused !== undefined) logger.info('the newest policy revision is in force again');
      this.#refused = undefined;
      onApplied();
    } catch (error) {
      this.#refused = error instanceof Error ? error.message : String(error);
      logger.error({ err: error }, 'the new policy revision is refused; the one before it stays in force');
    }
  }
}
