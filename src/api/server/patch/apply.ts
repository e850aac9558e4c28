import { isDeepStrictEqual } from 'node:util';
import { isList, isObject, type JsonObject } from '../../json.ts';
import { fieldShape, type Shape } from '../../kinds/shape.ts';

/**
 * A set of fields in the form that managedFields have it (structured-merge-diff's FieldsV1): `f:name` for a field,
 * `k:{…}` for a list's element by its keys, `v:…` for a value in a set. An empty one is a leaf; `.` is the node itself.
 */
export type FieldSet = JsonObject;

/** Fields that no one owns: they say which object it is. */
const frame = ['apiVersion', 'kind'];
const frameMeta = [
  'name',
  'namespace',
  'generateName',
  'uid',
  'resourceVersion',
  'creationTimestamp',
  'managedFields',
  'generation',
  'selfLink',
];

/** @returns The fields that an applied configuration has an opinion about. */
export function fieldsOf(shape: Shape, applied: JsonObject): FieldSet {
  const { metadata, ...rest } = applied;
  for (const key of frame) delete rest[key];
  const meta = isObject(metadata) ? { ...metadata } : {};
  for (const key of frameMeta) delete meta[key];
  const set = setOf(shape, rest);
  const metaSet = setOf(fieldShape(shape, 'metadata'), meta);
  return Object.keys(metaSet).length === 0 ? set : { 'f:metadata': metaSet, ...set };
}

function setOf(shape: Shape, value: unknown): FieldSet {
  const set: FieldSet = {};
  if (isObject(value) && shape.is !== 'scalar')
    for (const [key, member] of Object.entries(value)) set[`f:${key}`] = setOf(fieldShape(shape, key), member);
  if (isList(value) && shape.is === 'list')
    for (const element of value) {
      if (shape.set) set[`v:${JSON.stringify(element)}`] = {};
      else if (shape.keys.length > 0 && isObject(element))
        set[elementKey(shape.keys, element)] = { '.': {}, ...setOf(shape.items, element) };
    }
  return set;
}

/** `k:{"containerPort":80,"protocol":"TCP"}`; a protocol that is not given is TCP, as everywhere in the API. */
function elementKey(keys: readonly string[], element: JsonObject): string {
  const sorted = [...keys].sort().map((key) => [key, element[key] ?? (key === 'protocol' ? 'TCP' : null)] as const);
  return `k:${JSON.stringify(Object.fromEntries(sorted.filter(([, value]) => value !== null)))}`;
}

/** @returns `live` with `applied` laid over it: objects and keyed lists merge, everything else is replaced. */
export function layOver(shape: Shape, live: unknown, applied: unknown): unknown {
  if (isObject(applied) && (isObject(live) || live === undefined)) {
    const result: JsonObject = { ...live };
    for (const [key, value] of Object.entries(applied))
      result[key] = layOver(fieldShape(shape, key), result[key], value);
    return result;
  }
  if (!isList(applied) || shape.is !== 'list') return applied;
  const current = isList(live) ? live : [];
  if (shape.set) return [...current, ...applied.filter((value) => !current.includes(value))];
  if (shape.keys.length === 0) return applied;
  const result = [...current];
  for (const element of applied) {
    if (!isObject(element)) return applied;
    const key = elementKey(shape.keys, element);
    const index = result.findIndex((other) => isObject(other) && elementKey(shape.keys, other) === key);
    const merged = layOver(shape.items, index < 0 ? {} : result[index], element);
    if (index < 0) result.push(merged);
    else result[index] = merged;
  }
  return result;
}

/** @returns `value` without the fields of `set`; what becomes empty by that goes as well. */
export function removeFields(shape: Shape, value: unknown, set: FieldSet): unknown {
  if (isObject(value)) {
    const result: JsonObject = { ...value };
    for (const [name, inner] of Object.entries(set)) {
      if (!name.startsWith('f:')) continue;
      const key = name.slice(2);
      if (!Object.hasOwn(result, key)) continue;
      const leaf = !isObject(inner) || Object.keys(inner).length === 0;
      const left = leaf ? undefined : removeFields(fieldShape(shape, key), result[key], inner);
      if (left === undefined) delete result[key];
      else result[key] = left;
    }
    return Object.keys(result).length === 0 ? undefined : result;
  }
  if (!isList(value) || shape.is !== 'list') return value;
  const left = value.flatMap((element) => {
    if (shape.set) return `v:${JSON.stringify(element)}` in set ? [] : [element];
    const inner = isObject(element) ? set[elementKey(shape.keys, element)] : undefined;
    if (!isObject(inner)) return [element];
    // Who owned the element itself takes all of it away; who owned some of its fields takes those.
    if (inner['.'] !== undefined) return [];
    const rest = removeFields(shape.items, element, inner);
    return rest === undefined ? [] : [rest];
  });
  return left.length === 0 ? undefined : left;
}

/** @returns What is in `a` and not in `b`. */
export function difference(a: FieldSet, b: FieldSet): FieldSet {
  const result: FieldSet = {};
  for (const [name, inner] of Object.entries(a)) {
    const other = b[name];
    if (other === undefined) result[name] = inner;
    else if (isObject(inner) && isObject(other)) {
      const rest = difference(inner, other);
      if (Object.keys(rest).length > 0) result[name] = rest;
    }
  }
  return result;
}

/** @returns What is in either. */
export function union(a: FieldSet, b: FieldSet): FieldSet {
  const result: FieldSet = { ...a };
  for (const [name, inner] of Object.entries(b)) {
    const own = result[name];
    result[name] = isObject(own) && isObject(inner) ? union(own, inner) : inner;
  }
  return result;
}

/**
 * The leaves of `owned` to which `applied` gives another value than they have in `live`.
 * @returns Field sets with one path each, and that path in words.
 */
export function conflicts(
  shape: Shape,
  owned: FieldSet,
  live: unknown,
  applied: unknown,
  path = '',
): { readonly path: string; readonly fields: FieldSet }[] {
  return Object.entries(owned).flatMap(([name, inner]) => {
    if (!isObject(inner)) return [];
    const { at, liveValue, appliedValue, innerShape } = step(shape, name, live, applied);
    if (appliedValue === undefined) return [];
    if (Object.keys(inner).filter((key) => key !== '.').length > 0)
      return conflicts(innerShape, inner, liveValue, appliedValue, path + at).map((found) => ({
        path: found.path,
        fields: { [name]: found.fields },
      }));
    return isDeepStrictEqual(liveValue, appliedValue) ? [] : [{ path: path + at, fields: { [name]: {} } }];
  });
}

function step(shape: Shape, name: string, live: unknown, applied: unknown) {
  if (name.startsWith('f:')) {
    const key = name.slice(2);
    const read = (value: unknown) => (isObject(value) ? value[key] : undefined);
    return { at: `.${key}`, liveValue: read(live), appliedValue: read(applied), innerShape: fieldShape(shape, key) };
  }
  const keys = shape.is === 'list' ? shape.keys : [];
  const items: Shape = shape.is === 'list' ? shape.items : { is: 'any' };
  const read = (list: unknown) =>
    isList(list) && name.startsWith('k:')
      ? list.find((element) => isObject(element) && elementKey(keys, element) === name)
      : undefined;
  return { at: `[${name.slice(2)}]`, liveValue: read(live), appliedValue: read(applied), innerShape: items };
}
