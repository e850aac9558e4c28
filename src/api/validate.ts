import type { z } from 'zod';
import { type FieldIssue, fieldPath } from './issue.ts';
import { isList, isObject, type JsonObject, valueAt } from './json.ts';
import { fieldShape, type Shape } from './kinds/shape.ts';

const quoted = (value: unknown) => JSON.stringify(value) ?? 'null';

export function invalidValue(field: string, value: unknown, detail: string): FieldIssue {
  return { field, reason: 'FieldValueInvalid', message: `Invalid value: ${quoted(value)}: ${detail}` };
}

export function requiredValue(field: string, detail = ''): FieldIssue {
  return {
    field,
    reason: 'FieldValueRequired',
    message: detail === '' ? 'Required value' : `Required value: ${detail}`,
  };
}

export function unsupportedValue(field: string, value: unknown, supported: readonly unknown[]): FieldIssue {
  const choices = supported.map(quoted).join(', ');
  return {
    field,
    reason: 'FieldValueNotSupported',
    message: `Unsupported value: ${quoted(value)}: supported values: ${choices}`,
  };
}

export function duplicateValue(field: string, value: unknown): FieldIssue {
  return { field, reason: 'FieldValueDuplicate', message: `Duplicate value: ${quoted(value)}` };
}

export function forbiddenField(field: string, detail: string): FieldIssue {
  return { field, reason: 'FieldValueForbidden', message: `Forbidden: ${detail}` };
}

export function wrongType(field: string, value: unknown, expected: string): FieldIssue {
  const found = isList(value) ? 'array' : value === null ? 'null' : typeof value;
  return {
    field,
    reason: 'FieldValueTypeInvalid',
    message: `Invalid value: ${quoted(found)}: ${field === '' ? 'the object' : field} must be of type ${expected}`,
  };
}

/** One line for people: `spec.type: Unsupported value: …`. */
export function formatIssue(issue: FieldIssue): string {
  return issue.field === '' ? issue.message : `${issue.field}: ${issue.message}`;
}

/**
 * Checks types, required fields and enums.
 * @returns Nothing where `value` is a T in the letter of its schema; unknown fields are not looked at.
 */
export function checkAgainst(schema: z.ZodType, value: unknown): FieldIssue[] {
  const result = schema.safeParse(value);
  return result.success ? [] : result.error.issues.map((issue) => fromZod(issue, value));
}

function fromZod(issue: z.core.$ZodIssue, root: unknown): FieldIssue {
  const field = fieldPath(issue.path);
  const value = valueAt(root, issue.path);
  if (value === undefined) return requiredValue(field);
  switch (issue.code) {
    case 'invalid_type':
      return wrongType(field, value, issue.expected === 'record' ? 'object' : issue.expected);
    case 'invalid_value':
      return typeof value === 'string'
        ? unsupportedValue(field, value, issue.values)
        : wrongType(field, value, 'string');
    case 'invalid_union':
      return wrongType(field, value, 'integer or string');
    case 'too_small':
      if (issue.origin === 'array') return requiredValue(field);
      return invalidValue(field, value, `must be greater than or equal to ${issue.minimum}`);
    case 'too_big':
      return invalidValue(field, value, `must be less than or equal to ${issue.maximum}`);
    default:
      return invalidValue(field, value, issue.message);
  }
}

/** Calls `found` for every field that `shape` does not know, with the object it is in. The fields of an unknown field are not visited. */
export function visitUnknown(
  shape: Shape,
  value: unknown,
  found: (holder: JsonObject, key: string, path: readonly PropertyKey[]) => void,
  path: readonly PropertyKey[] = [],
): void {
  if (shape.is === 'list' && isList(value)) {
    for (const [i, element] of value.entries()) visitUnknown(shape.items, element, found, [...path, i]);
    return;
  }
  if ((shape.is !== 'object' && shape.is !== 'map') || !isObject(value)) return;
  for (const key of Object.keys(value)) {
    if (shape.is === 'object' && !shape.open && !shape.fields.has(key)) found(value, key, [...path, key]);
    else visitUnknown(fieldShape(shape, key), value[key], found, [...path, key]);
  }
}

/** @returns One issue per field that the kind does not have, with those that it has there. */
export function unknownFields(shape: Shape, value: unknown): FieldIssue[] {
  const issues: FieldIssue[] = [];
  visitUnknown(shape, value, (_holder, key, path) => {
    const field = fieldPath(path);
    const known = fieldsAt(shape, path.slice(0, -1));
    issues.push({ field, reason: 'FieldUnknown', message: `unknown field "${field}"${expectation(key, known)}` });
  });
  return issues;
}

function fieldsAt(shape: Shape, path: readonly PropertyKey[]): string[] {
  let here = shape;
  for (const part of path) here = here.is === 'list' ? here.items : fieldShape(here, String(part));
  return here.is === 'object' ? [...here.fields.keys()] : [];
}

/** More than these are not read. */
const mostListed = 8;

function expectation(key: string, known: readonly string[]): string {
  if (known.length === 0) return '';
  if (known.length <= mostListed) return `: expected ${known.map(quoted).join(', ')}`;
  const near = known.filter((name) => distance(key.toLowerCase(), name.toLowerCase()) <= 2);
  return near.length === 0 ? '' : `: expected ${near.map(quoted).join(', ')}`;
}

/** How many letters have to be put in, left out or changed (Levenshtein). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, change));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
