import { z } from 'zod';
import type { PoliciesResult } from './issues.ts';
import type { Limit, Policy, PolicyOptions, Rule } from './rule.ts';

/** What people say of a policy of any kind beside its fields: the annotations, and the values of those that are a choice. */
const policyAnnotations = {
  'myelin.dev/established': ['re-evaluate', 'keep', 'reset'],
  'myelin.dev/denied': ['drop', 'reject'],
  'myelin.dev/mode': ['enforce', 'audit'],
  'myelin.dev/proxy': ['auto', 'never', 'required'],
  'myelin.dev/log': undefined,
  'myelin.dev/description': undefined,
} as const;
type Annotation = keyof typeof policyAnnotations;

const prefix = 'myelin.dev/';
/** Longer texts are not for a line of a log. */
const longestText = 256;

const outline = z.looseObject({
  metadata: z.looseObject({ annotations: z.record(z.string(), z.unknown()).nullish() }),
});

/**
 * Reads the annotations of an object of any kind into the policies that its fields came to. An annotation that says nothing
 * that is known is a limit of the policy, and the default stands: to enforce, to drop, to judge again. A policy that was
 * not understood has no options.
 * @param object As JSON or YAML gives it.
 */
export function withAnnotations(result: PoliciesResult, object: unknown): PoliciesResult {
  if (!result.ok) return result;
  const annotations = outline.safeParse(object).data?.metadata.annotations ?? {};
  const own = Object.entries(annotations).filter(([name]) => name.startsWith(prefix));
  if (own.length === 0) return result;
  const limits: Limit[] = [];
  const said: Partial<Record<Annotation, string>> = {};
  for (const [name, value] of own) {
    const reason = isAnnotation(name)
      ? objection(name, value)
      : `policies have ${Object.keys(policyAnnotations).join(', ')}`;
    if (reason !== undefined) limits.push({ field: `metadata.annotations[${JSON.stringify(name)}]`, reason });
    else if (isAnnotation(name) && typeof value === 'string') said[name] = value;
  }
  return { ok: true, policies: result.policies.map((policy) => withOptions(policy, optionsOf(said), limits)) };
}

function isAnnotation(name: string): name is Annotation {
  return Object.hasOwn(policyAnnotations, name);
}

/** @returns What is wrong with the value; undefined where nothing is. */
function objection(name: Annotation, value: unknown): string | undefined {
  const choice: readonly string[] | undefined = policyAnnotations[name];
  if (choice !== undefined)
    return choice.some((one) => one === value)
      ? undefined
      : `is ${choice.join(' or ')}, not ${JSON.stringify(value)}; ${choice[0]} stands`;
  if (typeof value === 'string' && value !== '' && value.length <= longestText && printable.test(value))
    return undefined;
  return `is a text of one line, at most ${longestText} characters`;
}

const printable = /^[^\p{Cc}\p{Zl}\p{Zp}]*$/u;

function optionsOf(said: Partial<Record<Annotation, string>>): PolicyOptions {
  const pick = <T extends string>(choice: readonly T[], value: string | undefined): T | undefined =>
    choice.find((one) => one === value);
  const established = pick(policyAnnotations['myelin.dev/established'], said['myelin.dev/established']);
  const denied = pick(policyAnnotations['myelin.dev/denied'], said['myelin.dev/denied']);
  const mode = pick(policyAnnotations['myelin.dev/mode'], said['myelin.dev/mode']);
  const proxy = pick(policyAnnotations['myelin.dev/proxy'], said['myelin.dev/proxy']);
  const { 'myelin.dev/log': log, 'myelin.dev/description': description } = said;
  return {
    ...(established === undefined ? {} : { established }),
    ...(denied === undefined ? {} : { denied }),
    ...(mode === undefined ? {} : { mode }),
    ...(proxy === undefined ? {} : { proxy }),
    ...(log === undefined ? {} : { log }),
    ...(description === undefined ? {} : { description }),
  };
}

function withOptions(policy: Policy, given: PolicyOptions, added: readonly Limit[]): Policy {
  // What the kind's own fields say goes before.
  const options = { ...given, ...policy.options };
  const limits = [...(policy.limits ?? []), ...added];
  return {
    ...policy,
    rules: policy.rules.map((rule) => withTexts(rule, given)),
    ...(Object.keys(options).length === 0 ? {} : { options }),
    ...(limits.length === 0 ? {} : { limits }),
  };
}

/** The rule with the texts that it has not got of its own; what is to be logged goes with its reference. */
export function withTexts(rule: Rule, { log, description }: Pick<PolicyOptions, 'log' | 'description'>): Rule {
  const text = rule.log ?? log;
  const about = rule.description ?? description;
  return {
    ...rule,
    ...(text === undefined ? {} : { log: text, ref: { ...rule.ref, log: text } }),
    ...(about === undefined ? {} : { description: about }),
  };
}
