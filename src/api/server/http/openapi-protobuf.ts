import { stringify } from 'yaml';
import { isList, isObject, type JsonObject, stringOr } from '../../json.ts';
import type { PatchOperation } from './openapi-schema.ts';
import { gvkOf } from './openapi-schema.ts';
import { ProtobufWriter } from './protobuf.ts';

/**
 * Encodes an OpenAPI v2 document as gnostic's `openapi.v2.Document` (google/gnostic openapiv2/OpenAPIv2.proto), the only
 * form in which kubectl before 1.27 reads it. The field numbers below are that file's.
 */
export function encodeOpenApiV2(document: {
  readonly version: string;
  readonly definitions: Readonly<Record<string, JsonObject>>;
  readonly patches: readonly PatchOperation[];
}): Buffer {
  return new ProtobufWriter()
    .string(1, '2.0')
    .message(2, (info) => info.string(1, 'Kubernetes').string(2, document.version))
    .message(8, (paths) => {
      for (const operation of document.patches)
        paths.message(2, (named) =>
          named
            .string(1, operation.path)
            .message(2, (item) => item.message(8, (patch) => writeOperation(patch, operation))),
        );
    })
    .message(9, (definitions) => writeNamedSchemas(definitions, document.definitions))
    .finish();
}

function writeOperation(writer: ProtobufWriter, { kind, parameters }: PatchOperation): void {
  writer.string(5, `patch${kind.kind}`);
  for (const { name, type } of parameters)
    writer.message(8, (item) =>
      item.message(1, (parameter) =>
        parameter.message(2, (nonBody) =>
          nonBody.message(3, (query) => query.string(2, 'query').string(4, name).string(6, type)),
        ),
      ),
    );
  writer.message(9, (responses) =>
    responses.message(1, (named) =>
      named.string(1, '200').message(2, (value) => value.message(1, (response) => response.string(1, 'OK'))),
    ),
  );
  writeExtension(writer, 13, 'x-kubernetes-group-version-kind', gvkOf(kind));
}

/** Definitions and Properties are the same message: a list of named schemas. */
function writeNamedSchemas(writer: ProtobufWriter, schemas: Readonly<Record<string, unknown>>): void {
  for (const [name, schema] of Object.entries(schemas))
    writer.message(1, (named) =>
      named.string(1, name).message(2, (value) => writeSchema(value, isObject(schema) ? schema : {})),
    );
}

function writeSchema(writer: ProtobufWriter, schema: JsonObject): void {
  writer
    .string(1, stringOr(schema.$ref, ''))
    .string(2, stringOr(schema.format, ''))
    .string(4, stringOr(schema.description, ''));
  for (const name of isList(schema.required) ? schema.required : []) writer.string(19, String(name));
  for (const value of isList(schema.enum) ? schema.enum : [])
    writer.message(20, (any) => any.string(2, stringify(value)));
  const { additionalProperties, items, properties, type } = schema;
  if (isObject(additionalProperties))
    writer.message(21, (item) => item.message(1, (inner) => writeSchema(inner, additionalProperties)));
  if (typeof type === 'string') writer.message(22, (item) => item.string(1, type));
  if (isObject(items)) writer.message(23, (item) => item.message(1, (inner) => writeSchema(inner, items)));
  if (isObject(properties)) writer.message(25, (inner) => writeNamedSchemas(inner, properties));
  for (const [name, value] of Object.entries(schema))
    if (name.startsWith('x-')) writeExtension(writer, 31, name, value);
}

/** A vendor extension: a name, and its value as YAML. */
function writeExtension(writer: ProtobufWriter, field: number, name: string, value: unknown): void {
  writer.message(field, (named) => named.string(1, name).message(2, (any) => any.string(2, stringify(value))));
}
