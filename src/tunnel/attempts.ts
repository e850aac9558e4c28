import type { SaTerms } from './agreement.ts';
import type { Cancel } from './handshake/cancel.ts';
import { HandshakeError } from './handshake/error.ts';
import type { BreachRadius } from './handshake/exchange.ts';
import type { Established } from './pair-state.ts';
import type { Role } from './services.ts';

/** One handshake of a pair, whichever side began it. */
export interface Attempt {
  readonly number: number;
  readonly role: Role;
  readonly cancel: Cancel;
  readonly startedAt: number;
  /** Where somebody waits for its end. */
  done: PromiseWithResolvers<void> | undefined;
  /** What the namespaces asked for when it began. */
  readonly radius: BreachRadius;
  /** Reserved for it. */
  spi: number | undefined;
  established: Established | undefined;
  /** Of both its SAs. */
  terms: SaTerms | undefined;
}

/** The handshakes of a pair that are under way: one, and those that it took the place of. */
export class Attempts {
  #list: readonly Attempt[] = [];

  get isEmpty(): boolean {
    return this.#list.length === 0;
  }

  begin(given: Pick<Attempt, 'number' | 'role' | 'cancel' | 'startedAt' | 'radius'>): Attempt {
    const { number, role, cancel, startedAt, radius } = given;
    const attempt: Attempt = {
      number,
      role,
      cancel,
      startedAt,
      done: undefined,
      radius,
      spi: undefined,
      established: undefined,
      terms: undefined,
    };
    this.#list = [...this.#list, attempt];
    return attempt;
  }

  find(number: number): Attempt | undefined {
    return this.#list.find((attempt) => attempt.number === number);
  }

  end(attempt: Attempt): void {
    this.#list = this.#list.filter((other) => other !== attempt);
    attempt.done?.resolve();
  }

  /** Gives up those that it holds for, by default all. They are there until they have ended. */
  cancel(holds: (attempt: Attempt) => boolean = () => true): void {
    for (const attempt of this.#list) if (holds(attempt)) attempt.cancel.cancel(new HandshakeError('aborted'));
  }

  /** Resolves when those that are under way now have ended. */
  async ended(): Promise<void> {
    const ended = this.#list.map((attempt) => {
      attempt.done ??= Promise.withResolvers();
      return attempt.done.promise;
    });
    await Promise.all(ended);
  }
}
