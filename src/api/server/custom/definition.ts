import { isList, isObject, type JsonObject } from '../../json.ts';
import { anything, type Shape, shapeOf } from '../../kinds/shape.ts';
import { type CustomResourceDefinition, frameDescriptions, kinds } from '../../kinds.ts';

export type Version = CustomResourceDefinition['spec']['versions'][number];

/** @returns The shape of the custom resources of one version: its schema, with the parts that every object has. */
export function customShape(version: Version): Shape {
  const builtin = shapeOf(kinds.CustomResourceDefinition.schema);
  const meta = builtin.is === 'object' ? (builtin.fields.get('metadata') ?? anything) : anything;
  const shape = structuralShape(version.schema?.openAPIV3Schema ?? {});
  if (shape.is !== 'object') return anything;
  const frame: [string, Shape][] = [
    ['apiVersion', { is: 'scalar', type: 'string', description: frameDescriptions.apiVersion }],
    ['kind', { is: 'scalar', type: 'string', description: frameDescriptions.kind }],
    ['metadata', meta],
  ];
  return { ...shape, fields: new Map([...shape.fields, ...frame]) };
}

function structuralShape(schema: JsonObject): Shape {
  const { description } = schema;
  return { ...sortOf(schema), ...(typeof description === 'string' ? { description } : {}) };
}

function sortOf(schema: JsonObject): Shape {
  if (schema['x-kubernetes-int-or-string'] === true) return { is: 'scalar', type: 'int-or-string' };
  const open =
    schema['x-kubernetes-preserve-unknown-fields'] === true || schema['x-kubernetes-embedded-resource'] === true;
  switch (schema.type) {
    case 'object': {
      const fields = new Map<string, Shape>();
      for (const [name, member] of Object.entries(isObject(schema.properties) ? schema.properties : {}))
        fields.set(name, isObject(member) ? structuralShape(member) : anything);
      if (isObject(schema.additionalProperties) && fields.size === 0)
        return { is: 'map', values: structuralShape(schema.additionalProperties) };
      if (schema.additionalProperties === true && fields.size === 0) return { is: 'map', values: anything };
      const required = isList(schema.required) ? schema.required.map(String) : [];
      return { is: 'object', fields, required, open };
    }
    case 'array': {
      const items = isObject(schema.items) ? structuralShape(schema.items) : anything;
      const keys = schema['x-kubernetes-list-map-keys'];
      const isMap = schema['x-kubernetes-list-type'] === 'map' && isList(keys);
      return {
        is: 'list',
        items,
        keys: isMap ? keys.map(String) : [],
        set: schema['x-kubernetes-list-type'] === 'set',
      };
    }
    case 'string':
    case 'integer':
    case 'number':
    case 'boolean':
      return {
        is: 'scalar',
        type: schema.type,
        ...(typeof schema.format === 'string' ? { format: schema.format } : {}),
        ...(isList(schema.enum) ? { values: schema.enum.map(String) } : {}),
      };
    default:
      return anything;
  }
}
