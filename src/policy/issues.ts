import type { z } from 'zod';
import type { Selector } from '../model/labels.ts';
import type { selectorSchema } from './network-policy/schema.ts';
import type { Policy } from './rule.ts';

/** One thing that is wrong with an object, with the place: a program finds the line by `path`, a person reads `field`. */
export interface FieldIssue {
  readonly path: readonly (string | number)[];
  /** `spec.ingress[0].ports[1].endPort`; empty for the object as a whole. */
  readonly field: string;
  readonly message: string;
}

/**
 * Stands in for a policy that is not understood: whatever the policy may have meant, what it selects (all that it could
 * select if even that cannot be read) is closed to what the policy could have closed it to.
 */
export type BrokenPolicy = Policy & { readonly broken: string };

/**
 * A policy that does not validate is refused where it can be (CLI, API). Where it arrives anyway, from a newer server, the
 * node enforces `broken` in its place; it is absent only where not even the policy's name can be read.
 */
export type ParseResult =
  | { readonly ok: true; readonly policy: Policy }
  | { readonly ok: false; readonly issues: readonly FieldIssue[]; readonly broken?: BrokenPolicy };

/** The same for kinds of which one object may be several policies: each of its `specs` is about pods of its own. */
export type PoliciesResult =
  | { readonly ok: true; readonly policies: readonly Policy[] }
  | { readonly ok: false; readonly issues: readonly FieldIssue[]; readonly broken?: BrokenPolicy };

/** The first few issues as one line, for statuses and logs. */
export function formatIssues(issues: readonly FieldIssue[]): string {
  const shown = issues.slice(0, 5).map(({ field, message }) => (field === '' ? message : `${field}: ${message}`));
  return [...shown, ...(issues.length > 5 ? [`and ${issues.length - 5} more`] : [])].join('; ');
}

/** What zod says of an object, in words of the API, a field each. */
export function toIssues(issue: z.core.$ZodIssue): FieldIssue[] {
  const path = issue.path.map((part) => (typeof part === 'number' ? part : String(part)));
  if (issue.code === 'unrecognized_keys')
    return issue.keys.map((key) => fieldIssue([...path, key], 'is not a field of this kind'));
  if (issue.code === 'invalid_value')
    return [fieldIssue(path, `expected ${issue.values.map((value) => JSON.stringify(value)).join(' or ')}`)];
  if (issue.code === 'invalid_type' && issue.message.startsWith('Invalid input'))
    return [fieldIssue(path, `expected ${typeWords[issue.expected] ?? issue.expected}`)];
  return [fieldIssue(path, issue.message)];
}

const typeWords: Readonly<Record<string, string>> = { array: 'a list', object: 'an object', string: 'a text' };

function fieldIssue(path: readonly (string | number)[], message: string): FieldIssue {
  return { path, field: fieldOf(path), message };
}

/** `spec.rules[0].from[1]` */
export function fieldOf(path: readonly (string | number)[]): string {
  const field = path.map((part) => (typeof part === 'number' ? `[${part}]` : `.${part}`)).join('');
  return field.startsWith('.') ? field.slice(1) : field;
}

/** A checked LabelSelector without what it does not say. */
export function toSelector({ matchLabels, matchExpressions }: z.infer<typeof selectorSchema>): Selector {
  return {
    ...(matchLabels == null ? {} : { matchLabels }),
    ...(matchExpressions == null
      ? {}
      : {
          matchExpressions: matchExpressions.map(({ key, operator, values }) => ({
            key,
            operator,
            ...(values == null ? {} : { values }),
          })),
        }),
  };
}
