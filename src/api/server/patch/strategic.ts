import { isDeepStrictEqual } from 'node:util';
import { isList, isObject, type JsonObject, withoutNulls } from '../../json.ts';
import { fieldShape, type Shape } from '../../kinds/shape.ts';
import { badRequest } from '../status.ts';

const orderPrefix = '$setElementOrder/';
const removePrefix = '$deleteFromPrimitiveList/';

/**
 * Kubernetes' strategic merge patch: objects merge, lists whose elements have keys merge element by element, others are
 * replaced; `$patch`, `$retainKeys`, `$setElementOrder/…` and `$deleteFromPrimitiveList/…` direct it.
 * (apimachinery's pkg/util/strategicpatch is the reference.)
 * @returns A new value; neither argument is touched.
 * @throws {StatusError} `BadRequest` for directives that make no sense.
 */
export function strategicMerge(shape: Shape, original: unknown, patch: unknown): unknown {
  return isObject(patch) ? mergeObject(shape, isObject(original) ? original : {}, patch) : patch;
}

function mergeObject(shape: Shape, original: JsonObject, patch: JsonObject): JsonObject {
  const directive = patch.$patch;
  if (directive === 'replace') return withoutDirectives(patch);
  if (directive === 'delete') return {};
  if (directive !== undefined && directive !== 'merge') throw unknownDirective(directive);
  const result: JsonObject = { ...original };
  if (isList(patch.$retainKeys)) {
    const kept = patch.$retainKeys;
    for (const key of Object.keys(result)) if (!kept.includes(key)) delete result[key];
  }
  for (const [key, value] of Object.entries(patch)) {
    if (key.startsWith(removePrefix)) removeScalars(result, key.slice(removePrefix.length), value);
    else if (!key.startsWith('$')) mergeField(shape, result, key, value);
  }
  for (const [key, order] of Object.entries(patch)) {
    if (!key.startsWith(orderPrefix) || !isList(order)) continue;
    const name = key.slice(orderPrefix.length);
    const list = result[name];
    if (isList(list)) result[name] = reorder(list, original[name], order, mergeKey(fieldShape(shape, name)));
  }
  return result;
}

function mergeField(shape: Shape, result: JsonObject, key: string, value: unknown): void {
  const inner = fieldShape(shape, key);
  const current = result[key];
  if (value === null) delete result[key];
  else if (isObject(value)) {
    if (value.$patch === 'delete') delete result[key];
    else result[key] = mergeObject(inner, isObject(current) ? current : {}, value);
  } else if (isList(value) && isList(current)) result[key] = mergeList(inner, current, value);
  else if (isList(value)) result[key] = mergeList(inner, [], value);
  else result[key] = value;
}

/** The key by which the list's elements merge; undefined for a list that is not one of keyed objects. */
function mergeKey(shape: Shape): string | undefined {
  return shape.is === 'list' ? shape.keys[0] : undefined;
}

function mergeList(shape: Shape, current: readonly unknown[], patch: readonly unknown[]): unknown[] {
  if (shape.is !== 'list') return [...patch];
  if (shape.set) return [...current, ...patch.filter((value) => !current.includes(value))];
  const key = shape.keys[0];
  if (key === undefined) return [...patch];
  if (patch.some((element) => isObject(element) && element.$patch === 'replace'))
    return patch
      .filter((element) => !(isObject(element) && element.$patch === 'replace'))
      .map((e) => (isObject(e) ? withoutDirectives(e) : e));
  let result = [...current];
  for (const element of patch) {
    if (!isObject(element) || element[key] === undefined)
      throw badRequest(`strategic merge patch: an element of a list that merges by ${key} does not have it`);
    const same = (other: unknown) => isObject(other) && isDeepStrictEqual(other[key], element[key]);
    if (element.$patch === 'delete') {
      result = result.filter((other) => !same(other));
      continue;
    }
    const index = result.findIndex(same);
    const merged = mergeObject(shape.items, index < 0 ? {} : asObject(result[index]), element);
    if (index < 0) result.push(merged);
    else result[index] = merged;
  }
  return result;
}

function removeScalars(result: JsonObject, name: string, values: unknown): void {
  const list = result[name];
  if (isList(list) && isList(values)) result[name] = list.filter((value) => !values.includes(value));
}

/**
 * Elements that `order` names stand in that order; the others keep their order among themselves, and each goes before
 * the first named one that it stood before in the live list.
 */
function reorder(
  list: readonly unknown[],
  live: unknown,
  order: readonly unknown[],
  key: string | undefined,
): unknown[] {
  const idOf = (element: unknown) => JSON.stringify(key !== undefined && isObject(element) ? element[key] : element);
  const rank = new Map(order.map((element, i) => [idOf(element), i]));
  const liveRank = new Map((isList(live) ? live : []).map((element, i) => [idOf(element), i]));
  const named = list
    .filter((element) => rank.has(idOf(element)))
    .sort((a, b) => (rank.get(idOf(a)) ?? 0) - (rank.get(idOf(b)) ?? 0));
  const result = [...named];
  let from = 0;
  for (const element of list.filter((candidate) => !rank.has(idOf(candidate)))) {
    const own = liveRank.get(idOf(element)) ?? Number.POSITIVE_INFINITY;
    while (from < result.length && (liveRank.get(idOf(result[from])) ?? -1) < own) from++;
    result.splice(from++, 0, element);
  }
  return result;
}

function asObject(value: unknown): JsonObject {
  return isObject(value) ? value : {};
}

function withoutDirectives(value: JsonObject): JsonObject {
  const kept = Object.entries(value).filter(([key]) => !key.startsWith('$'));
  const result = withoutNulls(Object.fromEntries(kept));
  return asObject(result);
}

function unknownDirective(directive: unknown) {
  return badRequest(`strategic merge patch: unknown directive $patch: ${String(directive)}`);
}
