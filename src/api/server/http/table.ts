import type { AnyObject } from '../../json.ts';
import type { ServedKind } from '../catalog.ts';

interface TableForm {
  readonly apiVersion: string;
  readonly includeObject: string;
}

/** @returns A `meta.k8s.io` Table of the objects; without `headers` the columns are left out, as later events of a watch do. */
export function tableOf(
  kind: ServedKind,
  objects: readonly AnyObject[],
  form: TableForm,
  metadata: Record<string, unknown>,
  headers = true,
): Record<string, unknown> {
  const now = Date.now();
  return {
    kind: 'Table',
    apiVersion: form.apiVersion,
    metadata,
    columnDefinitions: headers
      ? kind.columns.map(({ name, type, format = '', description = '', priority }) => ({
          name,
          type,
          format,
          description,
          priority,
        }))
      : [],
    rows: objects.map((object) => ({
      cells: kind.columns.map(({ cell }) => cell(object, now)),
      object: rowObject(object, form),
    })),
  };
}

function rowObject(object: AnyObject, { includeObject, apiVersion }: TableForm): unknown {
  if (includeObject === 'None') return undefined;
  return includeObject === 'Object' ? object : partialOf(object, apiVersion);
}

/** @returns The object's metadata alone, as `PartialObjectMetadata`. */
export function partialOf({ metadata }: AnyObject, apiVersion: string): Record<string, unknown> {
  return { kind: 'PartialObjectMetadata', apiVersion, metadata };
}
