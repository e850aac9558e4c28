import { isDeepStrictEqual } from 'node:util';
import { tryParseIp } from '../../../model/address.ts';
import { type FieldIssue, fieldPath } from '../../issue.ts';
import { isList, isObject, type JsonObject } from '../../json.ts';
import { duplicateValue, invalidValue, requiredValue, unsupportedValue, wrongType } from '../../validate.ts';
import { readPrefix } from '../rules/network-policy.ts';

type Path = readonly PropertyKey[];

/**
 * Checks a custom resource against its structural schema (the OpenAPI v3 subset of CustomResourceDefinitions).
 * Fields that the schema does not name are not looked at. CEL rules (x-kubernetes-validations) are not evaluated:
 * whoever creates such a definition is warned.
 */
export function checkStructural(schema: JsonObject, value: unknown, path: Path = []): FieldIssue[] {
  const field = fieldPath(path);
  if (value === null && schema.nullable === true) return [];
  const wrong = checkType(schema, value, field);
  if (wrong !== undefined) return [wrong];
  const issues = [...checkScalar(schema, value, field), ...checkCombined(schema, value, path)];
  if (isObject(value)) issues.push(...checkFields(schema, value, path));
  if (isList(value)) issues.push(...checkList(schema, value, path));
  return issues;
}

function checkType(schema: JsonObject, value: unknown, field: string): FieldIssue | undefined {
  if (schema['x-kubernetes-int-or-string'] === true)
    return Number.isInteger(value) || typeof value === 'string'
      ? undefined
      : wrongType(field, value, 'integer or string');
  const fits: Record<string, (value: unknown) => boolean> = {
    object: isObject,
    array: isList,
    string: (v) => typeof v === 'string',
    boolean: (v) => typeof v === 'boolean',
    integer: (v) => Number.isInteger(v),
    number: (v) => typeof v === 'number',
  };
  const { type } = schema;
  if (typeof type !== 'string' || type === '') return undefined;
  return fits[type]?.(value) === true ? undefined : wrongType(field, value, type);
}

function checkScalar(schema: JsonObject, value: unknown, field: string): FieldIssue[] {
  const issues: FieldIssue[] = [];
  const limit = (name: string) => (typeof schema[name] === 'number' ? schema[name] : undefined);
  if (isList(schema.enum) && !schema.enum.some((choice) => isDeepStrictEqual(choice, value)))
    issues.push(unsupportedValue(field, value, schema.enum));
  if (typeof value === 'number') {
    const [low, high, step] = [limit('minimum'), limit('maximum'), limit('multipleOf')];
    if (low !== undefined && (schema.exclusiveMinimum === true ? value <= low : value < low))
      issues.push(
        invalidValue(
          field,
          value,
          `should be greater than${schema.exclusiveMinimum === true ? '' : ' or equal to'} ${low}`,
        ),
      );
    if (high !== undefined && (schema.exclusiveMaximum === true ? value >= high : value > high))
      issues.push(
        invalidValue(
          field,
          value,
          `should be less than${schema.exclusiveMaximum === true ? '' : ' or equal to'} ${high}`,
        ),
      );
    if (step !== undefined && value % step !== 0)
      issues.push(invalidValue(field, value, `should be a multiple of ${step}`));
    const bits = schema.format === 'int32' ? 2 ** 31 : undefined;
    if (bits !== undefined && (value < -bits || value >= bits))
      issues.push(invalidValue(field, value, 'must be a 32-bit integer'));
  }
  if (typeof value === 'string') {
    const [shortest, longest] = [limit('minLength'), limit('maxLength')];
    const length = [...value].length;
    if (shortest !== undefined && length < shortest)
      issues.push(invalidValue(field, value, `should be at least ${shortest} chars long`));
    if (longest !== undefined && length > longest)
      issues.push({ field, reason: 'FieldValueTooLong', message: `Too long: may not be more than ${longest} bytes` });
    if (typeof schema.pattern === 'string' && !compilePattern(schema.pattern)?.test(value))
      issues.push(invalidValue(field, value, `should match '${schema.pattern}'`));
    if (typeof schema.format === 'string' && !hasFormat(schema.format, value))
      issues.push(invalidValue(field, value, `must be of type ${schema.format}`));
  }
  return issues;
}

function checkFields(schema: JsonObject, value: JsonObject, path: Path): FieldIssue[] {
  const issues: FieldIssue[] = [];
  const properties = isObject(schema.properties) ? schema.properties : {};
  for (const name of isList(schema.required) ? schema.required : [])
    if (typeof name === 'string' && !Object.hasOwn(value, name)) issues.push(requiredValue(fieldPath([...path, name])));
  const count = Object.keys(value).length;
  if (typeof schema.minProperties === 'number' && count < schema.minProperties)
    issues.push(invalidValue(fieldPath(path), count, `should have at least ${schema.minProperties} properties`));
  if (typeof schema.maxProperties === 'number' && count > schema.maxProperties)
    issues.push({
      field: fieldPath(path),
      reason: 'FieldValueTooMany',
      message: `Too many: ${count}: must have at most ${schema.maxProperties} items`,
    });
  for (const [name, member] of Object.entries(value)) {
    const own = Object.hasOwn(properties, name) ? properties[name] : schema.additionalProperties;
    if (isObject(own)) issues.push(...checkStructural(own, member, [...path, name]));
  }
  return issues;
}

function checkList(schema: JsonObject, value: readonly unknown[], path: Path): FieldIssue[] {
  const field = fieldPath(path);
  const issues: FieldIssue[] = [];
  const { items, minItems, maxItems } = schema;
  if (typeof minItems === 'number' && value.length < minItems)
    issues.push(invalidValue(field, value.length, `should have at least ${minItems} items`));
  if (typeof maxItems === 'number' && value.length > maxItems)
    issues.push({
      field,
      reason: 'FieldValueTooMany',
      message: `Too many: ${value.length}: must have at most ${maxItems} items`,
    });
  if (isObject(items))
    for (const [i, element] of value.entries()) issues.push(...checkStructural(items, element, [...path, i]));
  const keys = isList(schema['x-kubernetes-list-map-keys']) ? schema['x-kubernetes-list-map-keys'].map(String) : [];
  const listType = schema['x-kubernetes-list-type'];
  if (listType !== 'map' && listType !== 'set') return issues;
  const seen = new Set<string>();
  for (const [i, element] of value.entries()) {
    const key = JSON.stringify(
      listType === 'set' ? element : keys.map((name) => (isObject(element) ? element[name] : undefined)),
    );
    if (seen.has(key)) issues.push(duplicateValue(`${field}[${i}]`, element));
    seen.add(key);
  }
  return issues;
}

function checkCombined(schema: JsonObject, value: unknown, path: Path): FieldIssue[] {
  const field = fieldPath(path);
  const branches = (name: string) => (isList(schema[name]) ? schema[name].filter(isObject) : []);
  const passes = (branch: JsonObject) => checkStructural(branch, value, path).length === 0;
  const issues = branches('allOf').flatMap((branch) => checkStructural(branch, value, path));
  const any = branches('anyOf');
  if (any.length > 0 && !any.some(passes))
    issues.push(invalidValue(field, '', 'must validate at least one schema (anyOf)'));
  const one = branches('oneOf');
  if (one.length > 0 && one.filter(passes).length !== 1)
    issues.push(invalidValue(field, '', 'must validate one and only one schema (oneOf)'));
  if (isObject(schema.not) && passes(schema.not))
    issues.push(invalidValue(field, '', 'must not validate the schema (not)'));
  return issues;
}

/** Fills in the schema's defaults, in place. */
export function setStructuralDefaults(schema: JsonObject, value: unknown): void {
  if (isList(value)) {
    if (isObject(schema.items)) for (const element of value) setStructuralDefaults(schema.items, element);
    return;
  }
  if (!isObject(value)) return;
  const properties = isObject(schema.properties) ? schema.properties : {};
  for (const [name, member] of Object.entries(properties)) {
    if (!isObject(member)) continue;
    if (!Object.hasOwn(value, name) && member.default !== undefined) value[name] = structuredClone(member.default);
    setStructuralDefaults(member, value[name]);
  }
  const others = schema.additionalProperties;
  if (isObject(others))
    for (const name of Object.keys(value))
      if (!Object.hasOwn(properties, name)) setStructuralDefaults(others, value[name]);
}

const patterns = new Map<string, RegExp>();

/** @returns undefined for a pattern that JavaScript cannot read. */
export function compilePattern(source: string): RegExp | undefined {
  const known = patterns.get(source);
  if (known !== undefined) return known;
  for (const flags of ['u', ''])
    try {
      const compiled = new RegExp(source, flags);
      patterns.set(source, compiled);
      return compiled;
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
    }
  return undefined;
}

function hasFormat(format: string, value: string): boolean {
  switch (format) {
    case 'ipv4':
      return tryParseIp(value) !== undefined && !value.includes(':');
    case 'ipv6':
      return tryParseIp(value) !== undefined && value.includes(':');
    case 'cidr':
      return readPrefix(value) !== undefined;
    case 'date-time':
      return (
        /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/i.test(value) && !Number.isNaN(Date.parse(value))
      );
    case 'uuid':
      return /^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$/i.test(value);
    default:
      return true;
  }
}
