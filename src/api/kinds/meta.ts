import { z } from 'zod';

/** What the fields that every object has are for. */
export const frameDescriptions = {
  apiVersion: 'The group and version of the kind, by which fields are understood.',
  kind: 'What sort of object this is.',
  metadata: 'What every object has: its name, labels, annotations, owners.',
} as const;

/**
 * A list that merges element by element.
 * @param listKeys What its elements are known by when two versions of it are merged. The first is the one of strategic merge
 *   patch, all together those of server-side apply. These must be the keys that Kubernetes' own types have (their
 *   patchMergeKey tags), neither more nor fewer: kubectl makes its patches by those.
 */
export function listMap<Item extends z.ZodType>(item: Item, ...listKeys: string[]) {
  return z.array(item).meta({ listKeys });
}

/** A list of scalars that merges as a set. */
export function listSet<Item extends z.ZodType>(item: Item) {
  return z.array(item).meta({ set: true });
}

export const int32 = z.int32();
export const text = z.string();
export const textMap = z.record(z.string(), z.string());
/** A part that Myelin keeps but does not look into. */
export const freeForm = z.record(z.string(), z.unknown());
export const intOrString = z.union([z.int32(), z.string()]).meta({ format: 'int-or-string' });
export const quantity = z.union([z.string(), z.number()]).meta({ format: 'quantity' });
export const quantities = z.record(z.string(), quantity);
/** RFC 3339. */
export const time = z.string().meta({ format: 'date-time' });
export const protocol = z.enum(['TCP', 'UDP', 'SCTP']);
export const ipFamily = z.enum(['IPv4', 'IPv6']);

const ownerReference = z.object({
  apiVersion: text,
  kind: text,
  name: text,
  uid: text,
  controller: z.boolean().optional(),
  blockOwnerDeletion: z.boolean().optional(),
});

const managedFieldsEntry = z.object({
  manager: text.optional(),
  operation: text.optional(),
  apiVersion: text.optional(),
  time: time.optional(),
  fieldsType: text.optional(),
  fieldsV1: freeForm.optional(),
  subresource: text.optional(),
});

export const objectMeta = z.object({
  name: text.optional(),
  generateName: text.optional(),
  namespace: text.optional(),
  uid: text.optional(),
  resourceVersion: text.optional(),
  generation: z.int().optional(),
  creationTimestamp: time.optional(),
  deletionTimestamp: time.optional(),
  deletionGracePeriodSeconds: z.int().optional(),
  labels: textMap.optional(),
  annotations: textMap.optional(),
  ownerReferences: listMap(ownerReference, 'uid').optional(),
  finalizers: listSet(text).optional(),
  managedFields: z.array(managedFieldsEntry).optional(),
  selfLink: text.optional(),
});
/** Metadata as somebody writes it; the server fills in the rest. */
export type ObjectMeta = z.infer<typeof objectMeta>;
export type OwnerReference = z.infer<typeof ownerReference>;

/** Any Kubernetes object. */
export interface KubeObject {
  apiVersion: string;
  kind: string;
  metadata: ObjectMeta;
}

/** Metadata of an object that an API server gave out. */
export interface LiveMeta extends ObjectMeta {
  name: string;
  uid: string;
  resourceVersion: string;
}

type NamespacedKind =
  | 'Pod'
  | 'ServiceAccount'
  | 'Service'
  | 'Endpoints'
  | 'EndpointSlice'
  | 'Deployment'
  | 'NetworkPolicy'
  | 'Lease'
  | 'Event'
  | 'ConfigMap'
  | 'Secret';

/** An object as an API server gave it out: it has a name, a UID, a resource version and, where its kind has one, a namespace. */
export type Live<T extends KubeObject> = T & {
  metadata: T extends { kind: NamespacedKind } ? LiveMeta & { namespace: string } : LiveMeta;
};

const selectorRequirement = z.object({
  key: text,
  operator: z.enum(['In', 'NotIn', 'Exists', 'DoesNotExist']),
  values: z.array(text).optional(),
});
export const labelSelector = z.object({
  matchLabels: textMap.optional(),
  matchExpressions: z.array(selectorRequirement).optional(),
});
export type LabelSelector = z.infer<typeof labelSelector>;

export const condition = z.object({
  type: text,
  status: text,
  reason: text.optional(),
  message: text.optional(),
  observedGeneration: z.int().optional(),
  lastTransitionTime: time.optional(),
});
export type Condition = z.infer<typeof condition>;

export const objectReference = z.object({
  kind: text.optional(),
  namespace: text.optional(),
  name: text.optional(),
  uid: text.optional(),
  apiVersion: text.optional(),
  resourceVersion: text.optional(),
  fieldPath: text.optional(),
});
export const localObjectReference = z.object({ name: text.optional() });

/** The schema of one kind: its two type fields, metadata, and what is its own. */
export function kindSchema<V extends string, K extends string, S extends z.ZodRawShape>(
  apiVersion: V,
  kind: K,
  shape: S,
) {
  return z.object({ apiVersion: z.literal(apiVersion), kind: z.literal(kind), metadata: objectMeta, ...shape });
}
