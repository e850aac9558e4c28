import { type AnyObject, isKubeObject, isObject, type JsonObject, objectOr } from '../../json.ts';
import type { Shape } from '../../kinds/shape.ts';
import type { ObjectMeta } from '../../kinds.ts';
import { conflict, type Target } from '../status.ts';
import { conflicts, difference, type FieldSet, fieldsOf, layOver, removeFields, union } from './apply.ts';

export interface ApplyRequest {
  readonly target: Target;
  readonly shape: Shape;
  readonly apiVersion: string;
  readonly manager: string;
  readonly force: boolean;
  readonly subresource: string;
  readonly now: string;
}

type Manager = NonNullable<ObjectMeta['managedFields']>[number];

/**
 * Server-side apply: what `applied` says holds; what its manager applied before, does not say any more, and nobody else
 * applies goes. Only appliers own fields here: a field that was written in another way is taken without a conflict.
 * @param live undefined where the object is to be created.
 * @throws {StatusError} `Conflict`, with one cause per field that another manager applied with another value.
 */
export function applyObject(live: AnyObject | undefined, applied: JsonObject, request: ApplyRequest): JsonObject {
  const { shape, manager, subresource } = request;
  const entries = live?.metadata.managedFields ?? [];
  const isOwn = (entry: Manager) =>
    entry.manager === manager && entry.operation === 'Apply' && (entry.subresource ?? '') === subresource;
  const fields = fieldsOf(shape, applied);
  const others = settleConflicts(
    entries.filter((entry) => !isOwn(entry) && entry.operation === 'Apply'),
    live,
    applied,
    request,
  );
  const owned = others.reduce((set, { fieldsV1 }) => union(set, objectOr(fieldsV1)), fields);
  const before = objectOr(entries.find(isOwn)?.fieldsV1);
  const dropped = difference(before, owned);
  const kept = live === undefined ? {} : objectOr(removeFields(shape, live, dropped));
  const merged = objectOr(layOver(shape, kept, applied));
  const own: Manager = {
    manager,
    operation: 'Apply',
    apiVersion: request.apiVersion,
    time: request.now,
    fieldsType: 'FieldsV1',
    fieldsV1: fields,
    ...(subresource === '' ? {} : { subresource }),
  };
  const metadata = objectOr(merged.metadata);
  return { ...merged, metadata: { ...metadata, managedFields: [...others, own] } };
}

function settleConflicts(
  others: readonly Manager[],
  live: AnyObject | undefined,
  applied: JsonObject,
  { target, shape, force }: ApplyRequest,
): Manager[] {
  const causes: { reason: string; message: string; field: string }[] = [];
  const kept = others.flatMap((entry) => {
    const owned = objectOr(entry.fieldsV1);
    const found = conflicts(shape, owned, live, applied);
    for (const { path } of found)
      causes.push({
        reason: 'FieldManagerConflict',
        message: `conflict with ${JSON.stringify(entry.manager ?? '')}`,
        field: path,
      });
    const rest = found.reduce<FieldSet>((set, { fields }) => difference(set, fields), owned);
    return Object.keys(rest).length === 0 ? [] : [{ ...entry, fieldsV1: rest }];
  });
  if (causes.length > 0 && !force) {
    const managers = [...new Set(causes.map(({ message }) => message))].join(', ');
    const name = isKubeObject(live) ? (live.metadata.name ?? '') : '';
    const list = causes.map(({ field }) => field).join(', ');
    throw conflict(
      target,
      name,
      `Apply failed with ${causes.length} conflict${causes.length > 1 ? 's' : ''}: ${managers}: ${list}`,
      causes,
    );
  }
  return kept;
}

/** Whether this is a configuration that can be applied at all. */
export function isApplyConfiguration(value: unknown): value is JsonObject {
  return isObject(value) && typeof value.apiVersion === 'string' && typeof value.kind === 'string';
}
