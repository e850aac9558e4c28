import { byPlace } from '../model/place.ts';
import { type FieldIssue, parseFieldPath } from './issue.ts';

/** Issues in the order in which a reader of the object comes to their places. */
export function inOrderOfPlace(issues: readonly FieldIssue[], object: unknown): FieldIssue[] {
  const compare = byPlace(object);
  return [...issues].sort((a, b) => compare(parseFieldPath(a.field), parseFieldPath(b.field)));
}
