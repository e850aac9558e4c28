import type { RuleRef } from '../model/verdict.ts';

type Rules = ReadonlyMap<number, RuleRef>;

/** A person asks about what was denied a moment ago, not about rules that went long since. */
const mostRetired = 4096;

/**
 * Which rule a number stands for. What the datapath decided by a revision may be heard of only when the next one is in
 * force already; numbers are never given to another rule, so those that have gone keep their names for a while.
 */
export class RuleNames {
  readonly #inForce: () => Rules;
  readonly #retired = new Map<number, RuleRef>();

  /** @param inForce The rules of the policy that is in force. */
  constructor(inForce: () => Rules) {
    this.#inForce = inForce;
  }

  of(number: number): RuleRef | undefined {
    return this.#inForce().get(number) ?? this.#retired.get(number);
  }

  /** To be told the rules that were in force until now, when others have taken their place. */
  retire(rules: Rules): void {
    const now = this.#inForce();
    for (const [number, rule] of rules) if (!now.has(number)) this.#retired.set(number, rule);
    for (const number of this.#retired.keys()) {
      if (this.#retired.size <= mostRetired) break;
      this.#retired.delete(number);
    }
  }
}
