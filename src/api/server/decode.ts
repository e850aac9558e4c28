import { type FieldIssue, fieldPath } from '../issue.ts';
import { type AnyObject, isKubeObject, isList, isObject, type JsonObject, withoutNulls } from '../json.ts';
import { inOrderOfPlace } from '../order.ts';
import { visitUnknown } from '../validate.ts';
import type { ServedKind } from './catalog.ts';
import { badRequest, invalid, strictDecoding } from './status.ts';

/** What becomes of fields that the kind does not have: refused, dropped with a warning, dropped. */
export type FieldValidation = 'Strict' | 'Warn' | 'Ignore';

const deepest = 100;

/** @throws {StatusError} `BadRequest` for values nested too deep to be walked, and for keys that JavaScript would misread. */
export function checkNesting(value: unknown, depth = 0): void {
  if (depth > deepest) throw badRequest(`the object is nested more than ${deepest} levels deep`);
  if (isList(value)) for (const element of value) checkNesting(element, depth + 1);
  else if (isObject(value))
    for (const key of Object.keys(value)) {
      if (key === '__proto__') throw badRequest('"__proto__" is not a field name');
      checkNesting(value[key], depth + 1);
    }
}

/**
 * Makes an object of one kind out of a request's body: its own copy, nulls and unknown fields gone, types checked.
 * @param warn Is told of each unknown field that is dropped, under `Warn`.
 * @param subresource `status`: nothing else of the body is taken, so nothing else is judged. What a newer server left in
 *   the spec is not for whoever writes the status to answer for.
 * @throws {StatusError} `BadRequest`; `Invalid` where types are wrong.
 */
export function decodeObject(
  kind: ServedKind,
  body: unknown,
  validation: FieldValidation,
  warn: (message: string) => void,
  subresource: '' | 'status' = '',
): AnyObject {
  if (!isObject(body)) throw badRequest(`expected a ${kind.kind} as a JSON object`);
  const { apiVersion = kind.apiVersion, kind: kindName = kind.kind, metadata = {} } = body;
  if (kindName !== kind.kind)
    throw badRequest(`${JSON.stringify(kindName)} in the data is not the expected kind ${JSON.stringify(kind.kind)}`);
  if (apiVersion !== kind.apiVersion && apiVersion !== kind.storageApiVersion)
    throw badRequest(
      `the API version in the data (${String(apiVersion)}) does not match the expected API version (${kind.apiVersion})`,
    );
  // For custom resources null may be a value of its own; for the built-in kinds it is the same as nothing.
  const meta = isObject(metadata) ? withoutNulls(metadata) : metadata;
  const rest = kind.custom ? body : withoutNulls(body);
  const object: unknown = structuredClone({
    ...(isObject(rest) ? rest : {}),
    apiVersion: kind.storageApiVersion,
    kind: kind.kind,
    metadata: meta,
  });
  if (!isKubeObject(object)) throw badRequest('metadata must be an object');
  const name = typeof object.metadata.name === 'string' ? object.metadata.name : '';
  const judged = ({ field }: FieldIssue) => subresource === '' || /^status\b/.test(field);
  const unknown = dropUnknown(kind, object).filter(judged);
  if (unknown.length > 0) {
    if (validation === 'Strict' || kind.rules.strict) throw strictDecoding(kind, name, unknown);
    if (validation === 'Warn') for (const { message } of unknown) warn(message);
  }
  const issues = kind.rules.check(object).filter(judged);
  if (issues.length > 0) throw invalid(kind, name, inOrderOfPlace(issues, object));
  return object;
}

/** Whether an object is one of its kind in every field. */
export function isUnderstood(kind: ServedKind, object: AnyObject): boolean {
  let unknown = 0;
  visitUnknown(kind.shape, object, () => unknown++);
  return unknown === 0 && kind.rules.check(object).length === 0;
}

function dropUnknown(kind: ServedKind, object: JsonObject): FieldIssue[] {
  const issues: FieldIssue[] = [];
  visitUnknown(kind.shape, object, (holder, key, path) => {
    const field = fieldPath(path);
    issues.push({ field, reason: 'FieldUnknown', message: `unknown field "${field}"` });
    delete holder[key];
  });
  return issues;
}
