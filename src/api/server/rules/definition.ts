import type { FieldIssue } from '../../issue.ts';
import { isList, isObject, type JsonObject } from '../../json.ts';
import { builtinResources, type CustomResourceDefinition, kinds } from '../../kinds.ts';
import { invalidValue, requiredValue, unsupportedValue } from '../../validate.ts';
import { compilePattern } from '../custom/structural.ts';
import { invalid } from '../status.ts';
import { checkName, checkUnique, dnsLabel1035, dnsSubdomain } from './names.ts';
import { rulesFor, type World } from './rules.ts';

export const definitionRules = rulesFor(kinds.CustomResourceDefinition, {
  prepareCreate: (definition) => {
    definition.status = {};
  },
  defaults: ({ spec, metadata }) => {
    spec.names.singular ||= spec.names.kind.toLowerCase();
    spec.names.listKind ||= `${spec.names.kind}List`;
    spec.conversion ??= { strategy: 'None' };
    metadata.name ??= '';
  },
  validate: ({ metadata, spec }) => [
    ...(metadata.name === `${spec.names.plural}.${spec.group}`
      ? []
      : [invalidValue('metadata.name', metadata.name, 'must be spec.names.plural+"."+spec.group')]),
    ...checkSpec(spec),
  ],
  validateUpdate: (next, old) =>
    (['group', 'scope'] as const).flatMap((field) =>
      next.spec[field] === old.spec[field]
        ? []
        : [invalidValue(`spec.${field}`, next.spec[field], 'field is immutable')],
    ),
  warnings: ({ spec }) =>
    spec.versions
      .filter(({ schema }) => hasCelRules(schema?.openAPIV3Schema ?? {}))
      .map(({ name }) => `version ${name}: x-kubernetes-validations are kept, but this server does not evaluate them`),
  admit: (next, old, world) => {
    refuseTakenNames(next, world);
    establish(next, old, world.now());
  },
});

function checkSpec(spec: CustomResourceDefinition['spec']): FieldIssue[] {
  const { names, versions, group, conversion } = spec;
  const issues = [
    ...checkName('spec.group', group, dnsSubdomain),
    ...checkName('spec.names.plural', names.plural, dnsLabel1035),
    ...checkName('spec.names.kind', names.kind.toLowerCase(), dnsLabel1035),
    ...checkUnique('spec.versions', versions, ({ name }) => name, '.name'),
  ];
  if (!group.includes('.')) issues.push(invalidValue('spec.group', group, 'should be a domain with at least one dot'));
  if (builtinResources.some((resource) => resource.group === group))
    issues.push(invalidValue('spec.group', group, 'is a group of built-in kinds'));
  if (conversion?.strategy === 'Webhook')
    issues.push(unsupportedValue('spec.conversion.strategy', 'Webhook', ['None']));
  if (versions.filter(({ storage }) => storage).length !== 1)
    issues.push(
      invalidValue(
        'spec.versions',
        versions.map(({ name }) => name),
        'must have exactly one version marked as storage version',
      ),
    );
  for (const [i, version] of versions.entries()) {
    issues.push(...checkName(`spec.versions[${i}].name`, version.name, dnsLabel1035));
    const at = `spec.versions[${i}].schema.openAPIV3Schema`;
    const schema = version.schema?.openAPIV3Schema;
    if (schema === undefined) issues.push(requiredValue(at, 'schemas are required'));
    else if (schema.type !== 'object')
      issues.push(invalidValue(`${at}.type`, schema.type, 'must be object at the root'));
    else issues.push(...checkSchema(at, schema));
  }
  return issues;
}

const knownTypes = ['object', 'array', 'string', 'integer', 'number', 'boolean'];

/** What would make the schema mean something else here than its author thinks. */
function checkSchema(at: string, schema: JsonObject): FieldIssue[] {
  const issues: FieldIssue[] = [];
  if (schema.$ref !== undefined)
    issues.push({ field: `${at}.$ref`, reason: 'FieldValueForbidden', message: 'Forbidden: $ref is not supported' });
  if (schema.type !== undefined && !knownTypes.includes(String(schema.type)))
    issues.push(unsupportedValue(`${at}.type`, schema.type, knownTypes));
  if (typeof schema.pattern === 'string' && compilePattern(schema.pattern) === undefined)
    issues.push(invalidValue(`${at}.pattern`, schema.pattern, 'must be a regular expression that ECMAScript can read'));
  if (schema.type === 'array' && !isObject(schema.items))
    issues.push(requiredValue(`${at}.items`, 'must be specified'));
  for (const [name, member] of subschemas(schema)) issues.push(...checkSchema(`${at}.${name}`, member));
  return issues;
}

function* subschemas(schema: JsonObject): Generator<[string, JsonObject]> {
  for (const [name, member] of Object.entries(isObject(schema.properties) ? schema.properties : {}))
    if (isObject(member)) yield [`properties[${name}]`, member];
  for (const name of ['items', 'additionalProperties', 'not']) {
    const member = schema[name];
    if (isObject(member)) yield [name, member];
  }
  for (const name of ['allOf', 'anyOf', 'oneOf'])
    for (const [i, member] of (isList(schema[name]) ? schema[name] : []).entries())
      if (isObject(member)) yield [`${name}[${i}]`, member];
}

/** Whether some part of the schema has CEL rules, which this server does not evaluate. */
function hasCelRules(schema: JsonObject): boolean {
  if (schema['x-kubernetes-validations'] !== undefined) return true;
  for (const [, member] of subschemas(schema)) if (hasCelRules(member)) return true;
  return false;
}

function refuseTakenNames(next: CustomResourceDefinition, world: World): void {
  for (const other of world.values('apiextensions.k8s.io/customresourcedefinitions')) {
    if (other.metadata.name === next.metadata.name || !isObject(other.spec) || other.spec.group !== next.spec.group)
      continue;
    const names = isObject(other.spec.names) ? other.spec.names : {};
    if (names.kind === next.spec.names.kind)
      throw invalid(kinds.CustomResourceDefinition, next.metadata.name ?? '', [
        invalidValue('spec.names.kind', next.spec.names.kind, `is the kind of ${other.metadata.name} already`),
      ]);
  }
}

function establish(next: CustomResourceDefinition, old: CustomResourceDefinition | undefined, now: string): void {
  const storage = next.spec.versions.find((version) => version.storage)?.name ?? '';
  const stored = new Set([...(old?.status?.storedVersions ?? []), storage]);
  const condition = (type: string, reason: string, message: string) =>
    old?.status?.conditions?.find((known) => known.type === type) ?? {
      type,
      status: 'True',
      reason,
      message,
      lastTransitionTime: now,
    };
  next.status = {
    ...next.status,
    acceptedNames: next.spec.names,
    storedVersions: [...stored],
    conditions: [
      condition('NamesAccepted', 'NoConflicts', 'no conflicts found'),
      condition('Established', 'InitialNamesAccepted', 'the initial names have been accepted'),
      ...(next.status?.conditions ?? []).filter(({ type }) => type !== 'NamesAccepted' && type !== 'Established'),
    ],
  };
}
