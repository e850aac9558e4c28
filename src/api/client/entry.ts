import type { FieldIssue } from '../issue.ts';
import { type AnyObject, isObject, withoutNulls } from '../json.ts';
import { shapeOf } from '../kinds/shape.ts';
import { apiVersionOf, type KubeObject, type Live, objectKey, type Resource } from '../kinds.ts';
import { checkAgainst, requiredValue, unknownFields } from '../validate.ts';
import { ApiError } from './error.ts';
import type { Entry } from './types.ts';

/**
 * Reads an object that an API server gave out. Its fields are checked against the kind's schema, not changed.
 * @param value As it was parsed; in a list, servers leave apiVersion and kind out.
 * @throws {ApiError} `Malformed` where it is not an object with a name at all.
 */
export function toEntry<T extends KubeObject>(resource: Resource<T>, value: unknown): Entry<T> {
  const raw = frameOf(resource, withoutNulls(value));
  if (raw === undefined)
    throw new ApiError('Malformed', `the API gave out a ${resource.kind} that has no metadata.name`);
  const issues = [...requiredMeta(raw), ...checkAgainst(resource.schema, raw)];
  const object = isLive(resource, raw, issues) ? raw : undefined;
  return { key: objectKey(raw), raw, object, issues: [...issues, ...unknownFields(shapeOf(resource.schema), raw)] };
}

/** @throws {ApiError} `Malformed` where the object is not one that this program understands. */
export function toObject<T extends KubeObject>(resource: Resource<T>, value: unknown): Live<T> {
  const { key, object, issues } = toEntry(resource, value);
  if (object === undefined)
    throw new ApiError(
      'Malformed',
      `${resource.kind} ${key} is not understood: ${issues.map(({ field }) => field).join(', ')}`,
      {
        causes: issues,
      },
    );
  return object;
}

function frameOf(resource: Resource, value: unknown): AnyObject | undefined {
  if (!isObject(value) || !isObject(value.metadata) || typeof value.metadata.name !== 'string') return undefined;
  const { apiVersion, kind, metadata } = value;
  if (typeof apiVersion === 'string' && typeof kind === 'string') return { ...value, apiVersion, kind, metadata };
  return { ...value, apiVersion: apiVersionOf(resource), kind: resource.kind, metadata };
}

function requiredMeta({ metadata }: KubeObject): FieldIssue[] {
  return (['uid', 'resourceVersion'] as const).flatMap((name) =>
    typeof metadata[name] === 'string' ? [] : [requiredValue(`metadata.${name}`)],
  );
}

function isLive<T extends KubeObject>(
  _resource: Resource<T>,
  _raw: KubeObject,
  issues: readonly FieldIssue[],
): _raw is Live<T> {
  return issues.length === 0;
}
