import type { RuleRef } from '../../model/verdict.ts';
import type { Stage } from '../image.ts';
import type { DomainPattern } from '../request/domain.ts';
import type { HttpMatch } from '../request.ts';
import type { Rule } from '../rule.ts';

/** A rule as it is enforced, with the `optionFlags` of it and its policy. */
export interface AskedRule {
  readonly rule: Rule;
  readonly flags: number;
  /** Only for requests that are one of these, where the kernel reads them. */
  readonly http?: readonly HttpMatch[];
  /** What it asks of requests the proxy reads. */
  readonly proxied?: true;
  /** Its policy forbids the proxy. */
  readonly never?: true;
}

/** What is asked at one stage. */
export interface StageRules {
  /** In the order in which they decide. */
  readonly rules: readonly AskedRule[];
  /** Whether what no rule allows is denied: by the first of the policies that isolate, or by the default. */
  readonly isolation: Isolation | undefined;
  /** All rules in that order, also those that `rules` leaves out, where any of them is about DNS questions. */
  readonly questions?: readonly QuestionRule[];
}

/** A rule as it stands for a DNS question. */
export interface QuestionRule extends AskedRule {
  /** For a question for one of these; absent: for each. */
  readonly names?: readonly DomainPattern[];
}

export type Isolation =
  | { readonly by: 'policy'; readonly ref: RuleRef /** `optionFlags`. */; readonly flags: number }
  | { readonly by: 'default' };

/** What is asked of a pod's traffic in one direction; of the stages admin and mesh, perhaps nothing. */
export type SubjectSide = Readonly<Partial<Record<Stage, StageRules>>> & { readonly network: StageRules };
