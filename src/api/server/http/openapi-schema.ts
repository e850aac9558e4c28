import type { JsonObject } from '../../json.ts';
import { fieldShape, type Shape } from '../../kinds/shape.ts';
import { frameDescriptions } from '../../kinds.ts';
import type { ServedKind } from '../catalog.ts';

export type Dialect = 'v2' | 'v3';

/** One PATCH operation of OpenAPI, which is where kubectl reads which query parameters a server understands. */
export interface PatchOperation {
  readonly path: string;
  readonly kind: ServedKind;
  readonly parameters: readonly { readonly name: string; readonly type: 'string' | 'boolean' }[];
}

const metaName = 'io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta';

/** @returns The name of the kind's schema among the definitions: `io.k8s.api.apps.v1.Deployment`. */
export function definitionName({ group, version, kind, custom }: ServedKind): string {
  if (custom) return [...group.split('.').reverse(), version, kind].join('.');
  const short = group === '' ? 'core' : group.replace(/\.k8s\.io$/, '');
  return `io.k8s.api.${short}.${version}.${kind}`;
}

/** @returns All schemas that `kinds` need, by name. */
export function definitions(kinds: readonly ServedKind[], dialect: Dialect): Record<string, JsonObject> {
  const result: Record<string, JsonObject> = {};
  for (const kind of kinds) {
    const meta = fieldShape(kind.shape, 'metadata');
    if (meta.is === 'object') result[metaName] = schemaOf(meta, dialect);
    const schema = schemaOf(kind.shape, dialect);
    const properties = typeof schema.properties === 'object' ? schema.properties : {};
    result[definitionName(kind)] = {
      ...schema,
      properties: {
        ...properties,
        metadata: { ...reference(metaName, dialect), description: frameDescriptions.metadata },
      },
      'x-kubernetes-group-version-kind': [gvkOf(kind)],
    };
  }
  return result;
}

export function gvkOf({ group, version, kind }: ServedKind): { group: string; version: string; kind: string } {
  return { group, version, kind };
}

export function reference(name: string, dialect: Dialect): JsonObject {
  return dialect === 'v2'
    ? { $ref: `#/definitions/${name}` }
    : { allOf: [{ $ref: `#/components/schemas/${name}` }], default: {} };
}

function schemaOf(shape: Shape, dialect: Dialect): JsonObject {
  const { description } = shape;
  return { ...(description === undefined ? {} : { description }), ...sortOf(shape, dialect) };
}

function sortOf(shape: Shape, dialect: Dialect): JsonObject {
  switch (shape.is) {
    case 'object': {
      // kubectl refuses fields beyond `properties`, so an open object says nothing about its fields.
      if (shape.open) return { type: 'object', 'x-kubernetes-preserve-unknown-fields': true };
      const properties = Object.fromEntries([...shape.fields].map(([name, field]) => [name, schemaOf(field, dialect)]));
      const required = shape.required.filter((name) => name !== 'apiVersion' && name !== 'kind' && name !== 'metadata');
      return { type: 'object', properties, ...(required.length > 0 ? { required } : {}) };
    }
    case 'map':
      return { type: 'object', additionalProperties: schemaOf(shape.values, dialect) };
    case 'list':
      return { type: 'array', items: schemaOf(shape.items, dialect), ...listExtensions(shape) };
    case 'scalar': {
      const format = shape.format === undefined ? {} : { format: shape.format };
      if (shape.type !== 'int-or-string')
        return { type: shape.type, ...format, ...(shape.values === undefined ? {} : { enum: shape.values }) };
      if (dialect === 'v2') return { type: 'string', format: 'int-or-string' };
      return { format: 'int-or-string', oneOf: [{ type: 'integer' }, { type: 'string' }] };
    }
    case 'any':
      return {};
  }
}

function listExtensions({ keys, set }: Extract<Shape, { is: 'list' }>): JsonObject {
  const [key] = keys;
  if (key !== undefined)
    return {
      'x-kubernetes-list-type': 'map',
      'x-kubernetes-list-map-keys': keys,
      'x-kubernetes-patch-merge-key': key,
      'x-kubernetes-patch-strategy': 'merge',
    };
  return set
    ? { 'x-kubernetes-list-type': 'set', 'x-kubernetes-patch-strategy': 'merge' }
    : { 'x-kubernetes-list-type': 'atomic' };
}
