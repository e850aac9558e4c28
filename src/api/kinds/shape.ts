import { z } from 'zod';

/** What the fields of a kind are, reduced to what merging, pruning and OpenAPI have to know. */
export type Shape = Sort & {
  /** For people. */
  readonly description?: string;
};

type Sort =
  | {
      readonly is: 'object';
      readonly fields: ReadonlyMap<string, Shape>;
      readonly required: readonly string[];
      /** Fields beyond `fields` are kept. */
      readonly open: boolean;
    }
  | { readonly is: 'map'; readonly values: Shape }
  | {
      readonly is: 'list';
      readonly items: Shape;
      /** What its elements are known by; empty: the list is one value and is replaced as a whole. */
      readonly keys: readonly string[];
      readonly set: boolean;
    }
  | {
      readonly is: 'scalar';
      readonly type: 'string' | 'integer' | 'number' | 'boolean' | 'int-or-string';
      readonly format?: string;
      readonly values?: readonly string[];
    }
  | { readonly is: 'any' };

const cache = new WeakMap<z.core.$ZodType, Shape>();

/** @returns The shape of a kind's zod schema; the same object each time. */
export function shapeOf(schema: z.core.$ZodType): Shape {
  const known = cache.get(schema);
  if (known !== undefined) return known;
  const description = z.globalRegistry.get(schema)?.description;
  const shape = { ...derive(schema), ...(description === undefined ? {} : { description }) };
  cache.set(schema, shape);
  return shape;
}

/** The shape of a field of `shape`, whether it is named or one of a map's. */
export function fieldShape(shape: Shape, key: string): Shape {
  if (shape.is === 'object') return shape.fields.get(key) ?? anything;
  return shape.is === 'map' ? shape.values : anything;
}

export const anything: Shape = { is: 'any' };

function derive(schema: z.core.$ZodType): Shape {
  const notes = z.globalRegistry.get(schema) ?? {};
  if (schema instanceof z.ZodOptional) return shapeOf(schema.unwrap());
  if (schema instanceof z.ZodObject) {
    const fields = new Map<string, Shape>();
    const required: string[] = [];
    const members: Record<string, z.core.$ZodType> = schema.shape;
    for (const [name, member] of Object.entries(members)) {
      fields.set(name, shapeOf(member));
      if (!(member instanceof z.ZodOptional)) required.push(name);
    }
    return { is: 'object', fields, required, open: schema.def.catchall !== undefined };
  }
  if (schema instanceof z.ZodRecord) return { is: 'map', values: shapeOf(schema.valueType) };
  if (schema instanceof z.ZodArray) {
    const keys = Array.isArray(notes.listKeys) ? notes.listKeys.map(String) : [];
    return { is: 'list', items: shapeOf(schema.element), keys, set: notes.set === true };
  }
  if (schema instanceof z.ZodUnion) return { is: 'scalar', type: 'int-or-string' };
  if (schema instanceof z.ZodEnum) return { is: 'scalar', type: 'string', values: schema.options.map(String) };
  if (schema instanceof z.ZodLiteral) return { is: 'scalar', type: 'string' };
  if (schema instanceof z.ZodString)
    return { is: 'scalar', type: 'string', ...(typeof notes.format === 'string' ? { format: notes.format } : {}) };
  if (schema instanceof z.ZodBoolean) return { is: 'scalar', type: 'boolean' };
  if (schema instanceof z.ZodNumber)
    return { is: 'scalar', type: 'integer', format: schema.format === 'int32' ? 'int32' : 'int64' };
  return anything;
}
