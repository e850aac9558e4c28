import type { FieldIssue } from '../../issue.ts';
import type { ObjectMeta } from '../../kinds.ts';
import { forbiddenField, invalidValue, requiredValue } from '../../validate.ts';
import { checkLabels, checkName, type NameRule, qualifiedName } from './names.ts';

const annotationLimit = 256 * 1024;

/** Checks what every kind has. @param rule The kind's own rule for names. */
export function checkMetadata(meta: ObjectMeta, rule: NameRule): FieldIssue[] {
  const issues = checkName('metadata.name', meta.name, rule);
  issues.push(...checkLabels('metadata.labels', meta.labels));
  let size = 0;
  for (const [key, value] of Object.entries(meta.annotations ?? {})) {
    const wrong = qualifiedName(key.toLowerCase());
    if (wrong !== undefined) issues.push(invalidValue('metadata.annotations', key, wrong));
    size += key.length + value.length;
  }
  if (size > annotationLimit)
    issues.push({
      field: 'metadata.annotations',
      reason: 'FieldValueTooLong',
      message: `Too long: may not be more than ${annotationLimit} bytes`,
    });
  for (const [i, finalizer] of (meta.finalizers ?? []).entries())
    issues.push(...checkName(`metadata.finalizers[${i}]`, finalizer, qualifiedName));
  const controllers = (meta.ownerReferences ?? []).filter((owner) => owner.controller === true);
  if (controllers.length > 1)
    issues.push(
      invalidValue(
        'metadata.ownerReferences',
        controllers.length,
        'only one reference can have controller set to true',
      ),
    );
  for (const [i, owner] of (meta.ownerReferences ?? []).entries())
    for (const part of ['apiVersion', 'kind', 'name', 'uid'] as const)
      if (owner[part] === '') issues.push(requiredValue(`metadata.ownerReferences[${i}].${part}`, 'must not be empty'));
  return issues;
}

/** What an update may not do to metadata. */
export function checkMetadataUpdate(next: ObjectMeta, old: ObjectMeta): FieldIssue[] {
  if (old.deletionTimestamp === undefined) return [];
  const added = (next.finalizers ?? []).filter((finalizer) => !(old.finalizers ?? []).includes(finalizer));
  if (added.length === 0) return [];
  return [
    forbiddenField(
      'metadata.finalizers',
      `no new finalizers can be added if the object is being deleted, found new finalizers ${JSON.stringify(added)}`,
    ),
  ];
}
