import { noServices } from '../../../policy/cilium/services.ts';
import { type PolicyKind, policyKindOf } from '../../../policy/kinds.ts';
import type { FieldIssue } from '../../issue.ts';
import { fieldPath } from '../../issue.ts';
import { valueAt } from '../../json.ts';
import type { PolicyObject } from '../../kinds/policy.ts';
import { apiVersionOf, policyResources } from '../../kinds.ts';
import { invalidValue, requiredValue } from '../../validate.ts';
import { type Rules, rulesFor } from './rules.ts';

type Issues = Extract<ReturnType<PolicyKind['parse']>, { ok: false }>['issues'];

/** The rules of the kinds of policies that are not Kubernetes' own: what their front ends say of an object. */
export const policyRules: Readonly<Record<string, Rules>> = Object.fromEntries(
  policyResources.map((resource) => {
    const kind = policyKindOf({ apiVersion: apiVersionOf(resource), kind: resource.kind });
    const read = (object: PolicyObject) => kind?.parse(object, { services: () => noServices });
    const rules = rulesFor(resource, {
      strict: true,
      validate: (object) => {
        const result = read(object);
        return result === undefined || result.ok ? [] : toIssues(object, result.issues);
      },
      // Whoever writes a policy learns at once what of it only closes; its status says it to everybody else.
      warnings: (object) => {
        const result = read(object);
        if (result === undefined || !result.ok) return [];
        return result.policies.flatMap(({ limits }) => limits ?? []).map(({ field, reason }) => `${field}: ${reason}`);
      },
    });
    return [resource.kind, rules];
  }),
);

function toIssues(object: PolicyObject, issues: Issues): FieldIssue[] {
  return issues.map(({ path, message }) => {
    const field = fieldPath(path);
    if (message === 'is not a field of this kind')
      return { field, reason: 'FieldUnknown', message: `unknown field "${field}"` };
    const value = valueAt(object, path);
    return value === undefined ? requiredValue(field, message) : invalidValue(field, value, message);
  });
}
