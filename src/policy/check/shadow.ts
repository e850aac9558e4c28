import { isDeepStrictEqual } from 'node:util';
import { formatRule } from '../../model/verdict.ts';
import { enforced } from '../decide.ts';
import { compareRules, type Policy, type Rule, withoutRequests } from '../rule.ts';
import { coversPeer, coversPeers, coversPorts } from './cover.ts';

/** A rule with the policy that it is of. */
export interface OwnedRule {
  readonly policy: Policy;
  readonly rule: Rule;
}

export interface Shadow {
  readonly rule: OwnedRule;
  /** The rule that decides whatever this one is about. */
  readonly by: OwnedRule;
  /** `never`: the other verdict comes first. `repeated`: the same verdict comes anyway. */
  readonly sort: 'never' | 'repeated';
  readonly message: string;
}

/**
 * The rules that make no difference in any cluster, because one other rule decides about all that they are about.
 * @param asked Of the policies, those whose rules are looked at; the others only stand beside them. Default: all.
 */
export function findShadows(policies: readonly Policy[], asked: ReadonlySet<Policy> = new Set(policies)): Shadow[] {
  const owned = policies
    // Where a kind's objects overrule each other, their rules say what each would do alone.
    .filter((policy) => enforced(policy) && policy.authentication === undefined)
    .flatMap((policy) => policy.rules.map((rule): OwnedRule => ({ policy, rule })))
    .sort((a, b) => compareRules(a.rule, b.rule));
  return owned.flatMap((one, at) => {
    if (!asked.has(one.policy)) return [];
    const before = owned.slice(0, at);
    const by = before.find((other) => overrides(other, one) && !mayBePassed(other, one, before));
    return by === undefined ? [] : [shadow(one, by)];
  });
}

/** Whether a flow may pass by `other`, and so come to a rule of another level: by a pass that stands before it. */
function mayBePassed({ rule: other }: OwnedRule, { rule }: OwnedRule, before: readonly OwnedRule[]): boolean {
  if (other.level === rule.level) return false;
  const passes = (one: Rule): boolean =>
    one.verdict === 'pass' && one.level === other.level && one.ref.direction === other.ref.direction;
  return before.some(({ rule: one }) => passes(one) && compareRules(one, other) < 0);
}

/** @param first Stands before `second` in the order of evaluation. */
function overrides(first: OwnedRule, second: OwnedRule): boolean {
  const [a, b] = [first.rule, second.rule];
  // One rule of a manifest may be several here, for its several ports: they do not shadow each other.
  return (
    a.ref !== b.ref &&
    first.policy.gate === second.policy.gate &&
    a.ref.direction === b.ref.direction &&
    decidesBefore(a, b) &&
    decidesUnseen(a, b) &&
    (a.requests === undefined || isDeepStrictEqual(a.requests, b.requests)) &&
    (a.subject === undefined || isDeepStrictEqual(a.subject, b.subject)) &&
    coversPorts(a.ports, b.ports) &&
    coversPeers(a.peers, b.peers) &&
    coversPeer(first.policy.subject, second.policy.subject)
  );
}

/** Whether a flow that both match is never left to the second. A pass leaves it to all but the rest of its own level. */
function decidesBefore(a: Rule, b: Rule): boolean {
  return a.verdict !== 'pass' || a.level === b.level;
}

/** The same where no request is seen, and rules about requests are others, and stand elsewhere. */
function decidesUnseen(a: Rule, b: Rule): boolean {
  const [first, second] = [withoutRequests(a), withoutRequests(b)];
  if (second === undefined) return true;
  return first !== undefined && compareRules(first, second) < 0 && decidesBefore(first, second);
}

function shadow(rule: OwnedRule, by: OwnedRule): Shadow {
  const sort = rule.rule.verdict === by.rule.verdict ? 'repeated' : 'never';
  const verb = { allow: 'allowed', deny: 'denied', pass: 'passed on' }[by.rule.verdict];
  const what = sort === 'never' ? 'never decides' : 'makes no difference';
  return { rule, by, sort, message: `${what}: all that it is about is ${verb} by ${formatRule(by.rule.ref)}` };
}
