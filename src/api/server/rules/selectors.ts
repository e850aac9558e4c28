import type { FieldIssue } from '../../issue.ts';
import type { LabelSelector } from '../../kinds.ts';
import { forbiddenField, invalidValue, requiredValue } from '../../validate.ts';
import { checkLabels, labelValue, qualifiedName } from './names.ts';

/** As `ValidateLabelSelector` of apimachinery checks it: the operator itself is an enum of the schema. */
export function checkSelector(field: string, selector: LabelSelector | undefined): FieldIssue[] {
  if (selector === undefined) return [];
  const issues = checkLabels(`${field}.matchLabels`, selector.matchLabels);
  for (const [i, { key, operator, values = [] }] of (selector.matchExpressions ?? []).entries()) {
    const at = `${field}.matchExpressions[${i}]`;
    const wrong = qualifiedName(key);
    if (wrong !== undefined) issues.push(invalidValue(`${at}.key`, key, wrong));
    const needsValues = operator === 'In' || operator === 'NotIn';
    if (needsValues && values.length === 0)
      issues.push(requiredValue(`${at}.values`, "must be specified when `operator` is 'In' or 'NotIn'"));
    if ((operator === 'Exists' || operator === 'DoesNotExist') && values.length > 0)
      issues.push(forbiddenField(`${at}.values`, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
    for (const [n, value] of values.entries()) {
      const wrongValue = labelValue(value);
      if (wrongValue !== undefined) issues.push(invalidValue(`${at}.values[${n}]`, value, wrongValue));
    }
  }
  return issues;
}
