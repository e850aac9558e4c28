import { z } from 'zod';
import { isServed } from './client/served.ts';
import type { Api } from './client/types.ts';
import { isList, type JsonObject, objectOr } from './json.ts';
import { clusterSettingsName } from './kinds/myelin.ts';
import {
  type CustomResourceDefinition,
  frameDescriptions,
  kinds,
  ownKinds,
  type PrinterColumn,
  type Resource,
} from './kinds.ts';

/**
 * The annotation of a CustomResourceDefinition whose objects must not have fields that it does not name: Myelin's server
 * refuses them whatever the request says. A kube-apiserver refuses them under the strict validation that kubectl asks for.
 */
export const strictFields = 'myelin.dev/strict-fields';

const effective: PrinterColumn = {
  name: 'Effective',
  type: 'string',
  jsonPath: '.status.conditions[?(@.type=="Effective")].status',
};
const agePrinter: PrinterColumn = { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp' };

/** Myelin's own kinds, as an API server is taught them. Made of the same schemas that the code reads objects by. */
export function ownDefinitions(): readonly CustomResourceDefinition[] {
  return [
    definition(ownKinds.Revocation, [
      { name: 'Target', type: 'string', jsonPath: '.status.target' },
      { name: 'Reason', type: 'string', jsonPath: '.spec.reason' },
      { name: 'Expires', type: 'string', jsonPath: '.spec.expires' },
      effective,
      agePrinter,
    ]),
    definition(
      ownKinds.ClusterSettings,
      [
        { name: 'Default', type: 'string', jsonPath: '.spec.defaultVerdict' },
        { name: 'Radius', type: 'string', jsonPath: '.spec.breachRadius' },
        effective,
        agePrinter,
      ],
      { name: { type: 'string', enum: [clusterSettingsName] } },
    ),
  ];
}

/** @param names What the schema says of `metadata.name`. */
function definition(
  resource: Resource,
  columns: readonly PrinterColumn[],
  names?: JsonObject,
): CustomResourceDefinition {
  const { group, version, kind, plural, singular, shortNames, categories } = resource;
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${plural}.${group}`, annotations: { [strictFields]: 'true' } },
    spec: {
      group,
      scope: 'Cluster',
      names: {
        plural,
        singular,
        kind,
        listKind: `${kind}List`,
        shortNames: [...shortNames],
        categories: [...categories],
      },
      versions: [
        {
          name: version,
          served: true,
          storage: true,
          schema: { openAPIV3Schema: openApiSchema(resource, names) },
          subresources: { status: {} },
          additionalPrinterColumns: [...columns],
        },
      ],
    },
  };
}

function openApiSchema(resource: Resource, names: JsonObject | undefined): JsonObject {
  const made: JsonObject = z.toJSONSchema(resource.schema, {
    target: 'openapi-3.0',
    io: 'input',
    override: ({ jsonSchema: schema }: { jsonSchema: JsonObject }) => {
      // A merge key is said in Kubernetes' own words.
      if (isList(schema.listKeys)) {
        schema['x-kubernetes-list-type'] = 'map';
        schema['x-kubernetes-list-map-keys'] = schema.listKeys;
        delete schema.listKeys;
      }
      // An integer's limit is not JavaScript's.
      if (schema.maximum === Number.MAX_SAFE_INTEGER) delete schema.maximum;
      if (schema.minimum === Number.MIN_SAFE_INTEGER) delete schema.minimum;
      if (schema.type === 'integer') schema.format = 'int64';
    },
  });
  const { spec, status } = objectOr(made.properties);
  const text = (description: string) => ({ description, type: 'string' });
  const metadata = {
    description: frameDescriptions.metadata,
    type: 'object',
    ...(names === undefined ? {} : { properties: names }),
  };
  const { apiVersion, kind } = frameDescriptions;
  return {
    ...(made.description === undefined ? {} : { description: made.description }),
    type: 'object',
    required: ['spec'],
    properties: { apiVersion: text(apiVersion), kind: text(kind), metadata, spec, status },
  };
}

/**
 * Teaches the API Myelin's own kinds, or the newest form of them. Resolves when they can be written.
 * @throws {ApiError}
 */
export async function installDefinitions(api: Api, signal?: AbortSignal): Promise<void> {
  const options = signal === undefined ? {} : { signal };
  await Promise.all(
    ownDefinitions().map(async (patch) => {
      const name = patch.metadata.name ?? '';
      await api.patch(kinds.CustomResourceDefinition, { name }, { type: 'apply', patch, force: true }, options);
    }),
  );
  // A kube-apiserver serves a new kind a moment after it has accepted it.
  for (const resource of Object.values(ownKinds)) await untilServed(api, resource, signal);
}

const servedWithinMs = 10_000;

async function untilServed(api: Api, resource: Resource, signal: AbortSignal | undefined): Promise<void> {
  for (const end = Date.now() + servedWithinMs; ; ) {
    if (await isServed(api, resource, signal)) return;
    if (Date.now() > end) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
