import type { Logger } from 'pino';
import type { ClusterView, PolicyImage } from '../policy/image.ts';

/** Who enforces an image: the datapath, all of it or nothing. */
export interface PolicyTarget {
  /** @throws {Error} where the revision does not fit; the one before stays in force. */
  applyPolicy(image: PolicyImage): void;
}

export interface PolicyLoopDeps {
  readonly view: () => ClusterView;
  readonly compile: (view: ClusterView, previous: PolicyImage | undefined) => PolicyImage;
  readonly target: PolicyTarget;
  /** After an image is in force. */
  readonly onApplied: (image: PolicyImage) => void;
  readonly logger: Logger;
}

/**
 * Keeps the datapath at the newest view of the cluster. Changes that arrive together become one revision; while a
 * revision is refused the one before it stays in force, the reason is kept to be shown, and the next change tries again.
 */
export class PolicyLoop {
  readonly #deps: PolicyLoopDeps;
  #image: PolicyImage | undefined;
  #refused: string | undefined;
  #scheduled: NodeJS.Immediate | undefined;
  #started = false;
  #applied = 0;

  constructor(deps: PolicyLoopDeps) {
    this.#deps = deps;
  }

  /** What is in force. */
  get image(): PolicyImage | undefined {
    return this.#image;
  }

  /** Why the newest revision is not in force. */
  get refused(): string | undefined {
    return this.#refused;
  }

  /** Revisions applied since the start. */
  get applied(): number {
    return this.#applied;
  }

  /** To be called once the first lists of everything are in: a half-known cluster must not be compiled. */
  start(): void {
    this.#started = true;
    this.run();
  }

  /** The view changed; a revision follows in this turn of the event loop. */
  schedule(): void {
    if (!this.#started || this.#scheduled !== undefined) return;
    this.#scheduled = setImmediate(() => this.run());
  }

  /** Brings the datapath up to date now; nothing happens before `start`. */
  run(): void {
    if (!this.#started) return;
    clearImmediate(this.#scheduled);
    this.#scheduled = undefined;
    const { view, compile, target, onApplied, logger } = this.#deps;
    try {
      const image = compile(view(), this.#image);
      target.applyPolicy(image);
      this.#image = image;
      this.#applied++;
      if (this.#refused !== undefined) logger.info('the policy revision is in force again');
      this.#refused = undefined;
      onApplied(image);
    } catch (error) {
      this.#refused = error instanceof Error ? error.message : String(error);
      logger.error({ err: error }, 'the new policy revision is refused; the one before it stays in force');
    }
  }

  stop(): void {
    clearImmediate(this.#scheduled);
    this.#started = false;
  }
}
