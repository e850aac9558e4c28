import type { KubeObject } from './kinds/meta.ts';

export type JsonObject = Record<string, unknown>;

/** An API object of which nothing but its frame is known. */
export type AnyObject = KubeObject & JsonObject;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function isList(value: unknown): value is unknown[] {
  return Array.isArray(value);
}

/** `value` as an object, or an empty one. */
export function objectOr(value: unknown): JsonObject {
  return isObject(value) ? value : {};
}

export function stringOr(value: unknown, otherwise: string): string {
  return typeof value === 'string' ? value : otherwise;
}

/** Walks into nested objects. @returns undefined where the path leads nowhere. */
export function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  let current = value;
  for (const part of path) {
    if (isList(current)) current = typeof part === 'number' ? current[part] : undefined;
    else if (isObject(current) && Object.hasOwn(current, part)) current = current[String(part)];
    else return undefined;
  }
  return current;
}

/**
 * Kubernetes reads a field that is null as one that is absent. A null that is a list's element stays, for validation to refuse.
 * @returns `value` itself where there is nothing to drop, else a copy; the original is not touched.
 */
export function withoutNulls(value: unknown): unknown {
  return without(value, (member) => member === null || member === undefined);
}

/** Drops the fields that JSON has no word for; null stays. */
export function withoutUndefined(value: unknown): unknown {
  return without(value, (member) => member === undefined);
}

function without(value: unknown, absent: (member: unknown) => boolean): unknown {
  if (isList(value)) {
    let changed: unknown[] | undefined;
    for (const [i, element] of value.entries()) {
      const kept = without(element, absent);
      if (kept === element) continue;
      changed ??= [...value];
      changed[i] = kept;
    }
    return changed ?? value;
  }
  if (!isObject(value)) return value;
  let changed: JsonObject | undefined;
  for (const key of Object.keys(value)) {
    const element = value[key];
    const gone = absent(element);
    const kept = gone ? undefined : without(element, absent);
    if (!gone && kept === element) continue;
    changed ??= { ...value };
    if (gone) delete changed[key];
    else changed[key] = kept;
  }
  return changed ?? value;
}

/** Whether this is the frame of an API object. */
export function isKubeObject(value: unknown): value is AnyObject {
  return (
    isObject(value) &&
    typeof value.apiVersion === 'string' &&
    typeof value.kind === 'string' &&
    isObject(value.metadata)
  );
}
