import { policyKindOf } from '../policy/kinds.ts';
import { type FieldIssue, parseFieldPath } from './issue.ts';
import { type AnyObject, isKubeObject, isList, isObject, objectOr, stringOr, withoutNulls } from './json.ts';
import { shapeOf } from './kinds/shape.ts';
import { apiVersionOf, builtinResources, type KubeObject, knownResources, type Resource } from './kinds.ts';
import {
  type ManifestDocument,
  ManifestError,
  type ManifestIssue,
  manifestFiles,
  type Place,
  readDocuments,
} from './manifest-file.ts';
import { inOrderOfPlace } from './order.ts';
import { builtinRules } from './server/rules/builtin.ts';
import { checkMetadata } from './server/rules/metadata.ts';
import { checkAgainst, invalidValue, requiredValue, unknownFields } from './validate.ts';

export { ManifestError, type ManifestErrorCode, type ManifestIssue, type Place } from './manifest-file.ts';

/** One object of a manifest, checked. */
export interface ManifestObject {
  readonly object: KubeObject;
  readonly resource: Resource;
  readonly place: Place;
}

export interface LoadOptions {
  /** For objects that name none. Default `default`. */
  readonly namespace?: string;
  /** Kinds beyond the built-in ones. */
  readonly resources?: readonly Resource[];
}

/**
 * Reads and checks manifests: all of them, completely, by the same rules as the API server, before anything is done with any.
 * @param paths Files, directories, `-` for standard input.
 * @returns The objects in the order in which they are best applied; one that is there twice stays twice, and the later wins.
 * @throws {ManifestError} With every issue in every file.
 */
export function loadManifests(paths: readonly string[], options: LoadOptions = {}): ManifestObject[] {
  const issues: ManifestIssue[] = [];
  const documents = manifestFiles(paths).flatMap((file) => {
    try {
      return readDocuments(file);
    } catch (error) {
      if (!(error instanceof ManifestError)) throw error;
      issues.push(...error.issues);
      return [];
    }
  });
  const objects = checkDocuments(documents, options, issues);
  const [first] = paths;
  if (objects.length === 0 && first !== undefined)
    throw new ManifestError('ManifestInvalid', [
      { file: first, line: 0, column: 0, message: 'has no object to apply' },
    ]);
  return objects;
}

/** As `loadManifests`, from documents that are already parsed. @param found Issues that there are already. @throws {ManifestError} */
export function checkDocuments(
  documents: readonly ManifestDocument[],
  options: LoadOptions = {},
  found: readonly ManifestIssue[] = [],
): ManifestObject[] {
  const issues = [...found];
  const objects: ManifestObject[] = [];
  for (const { document, value, path } of documents.flatMap(expandLists)) {
    const report = (issue: FieldIssue, name = '') => {
      const full = [...path, ...parseFieldPath(issue.field)];
      const key = issue.reason === 'FieldUnknown';
      issues.push({ ...document.placeOf(full, key), object: name, field: issue.field, message: issue.message });
    };
    const loaded = loadOne(value, options, report);
    if (loaded === undefined) continue;
    objects.push({ ...loaded, place: document.placeOf(path) });
  }
  if (issues.length > 0) throw new ManifestError('ManifestInvalid', issues);
  return inOrder(objects);
}

interface Item {
  readonly document: ManifestDocument;
  readonly value: unknown;
  readonly path: readonly PropertyKey[];
}

/** `kind: List` stands for its items. */
function expandLists(document: ManifestDocument): Item[] {
  const { value } = document;
  if (!isObject(value) || value.kind !== 'List' || !isList(value.items)) return [{ document, value, path: [] }];
  return value.items.map((item, i) => ({ document, value: item, path: ['items', i] }));
}

function loadOne(
  value: unknown,
  options: LoadOptions,
  report: (issue: FieldIssue, name?: string) => void,
): { object: KubeObject; resource: Resource } | undefined {
  const raw = withoutNulls(value);
  if (!isObject(raw)) {
    report({ field: '', reason: 'FieldValueTypeInvalid', message: 'expected a Kubernetes object' });
    return undefined;
  }
  const missing = ['apiVersion', 'kind', 'metadata'].filter((field) => raw[field] === undefined);
  for (const field of missing) report(requiredValue(field));
  if (missing.length > 0) return undefined;
  const resource = [...knownResources, ...(options.resources ?? [])].find(
    (known) => known.kind === raw.kind && (apiVersionOf(known) === raw.apiVersion || isOlder(known, raw)),
  );
  if (resource === undefined) {
    report({
      field: 'kind',
      reason: 'FieldValueNotSupported',
      message: `there is no kind ${String(raw.kind)} in ${String(raw.apiVersion)}${suggestion(raw.kind)}`,
    });
    return undefined;
  }
  const metadata = { ...objectOr(raw.metadata) };
  if (resource.namespaced) metadata.namespace ??= options.namespace ?? 'default';
  const object = {
    ...raw,
    apiVersion: apiVersionOf(resource),
    metadata: isObject(raw.metadata) ? metadata : raw.metadata,
  };
  const name = `${resource.kind} ${stringOr(metadata.name, '')}`;
  const rules = builtinResources.includes(resource) ? builtinRules[resource.kind] : undefined;
  const check = (given: object) =>
    rules !== undefined && isKubeObject(given) ? rules.check(given) : checkAgainst(resource.schema, given);
  const wrong = [...unknownFields(shapeOf(resource.schema), object), ...check(object)];
  if (!isKubeObject(object) || wrong.length > 0) {
    for (const issue of inOrderOfPlace(wrong, object)) report(issue, name);
    return undefined;
  }
  for (const issue of inOrderOfPlace(checkMeaning(resource, object), object)) report(issue, name);
  return { object, resource };
}

/** Whether the object is one of the kind under the name of a version that has the same fields. */
function isOlder(known: Resource, raw: { apiVersion?: unknown; kind?: unknown }): boolean {
  const kind = policyKindOf(raw);
  return kind !== undefined && kind === policyKindOf({ apiVersion: apiVersionOf(known), kind: known.kind });
}

/** What the server would say to the object when it has filled in the defaults. */
function checkMeaning(resource: Resource, object: AnyObject): FieldIssue[] {
  const rules = builtinRules[resource.kind];
  if (rules === undefined || !builtinResources.includes(resource)) return [];
  const copy = structuredClone(object);
  const { generateName, name, namespace } = copy.metadata;
  if (!name && generateName)
    return [invalidValue('metadata.generateName', generateName, 'what is applied must have a name')];
  if (!resource.namespaced && namespace !== undefined)
    return [invalidValue('metadata.namespace', namespace, `${resource.plural} have no namespace`)];
  rules.defaults(copy);
  return [...checkMetadata(copy.metadata, rules.name), ...rules.validate(copy)];
}

function suggestion(kind: unknown): string {
  const known = knownResources.find((resource) => resource.kind.toLowerCase() === String(kind).toLowerCase());
  if (known !== undefined) return `; ${known.kind} is in ${apiVersionOf(known)}`;
  return `: expected ${knownResources.map((resource) => resource.kind).join(', ')}`;
}

function inOrder(objects: readonly ManifestObject[]): ManifestObject[] {
  const rank = ({ resource }: ManifestObject) => {
    const index = builtinResources.indexOf(resource);
    return index < 0 ? builtinResources.length : index;
  };
  return [...objects].sort((a, b) => rank(a) - rank(b));
}
