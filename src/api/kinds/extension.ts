import { z } from 'zod';
import { condition, freeForm, int32, kindSchema, listMap, text } from './meta.ts';

const names = z.object({
  plural: text,
  singular: text.optional(),
  kind: text,
  listKind: text.optional(),
  shortNames: z.array(text).optional(),
  categories: z.array(text).optional(),
});

const printerColumn = z.object({
  name: text,
  type: text,
  format: text.optional(),
  description: text.optional(),
  priority: int32.optional(),
  jsonPath: text,
});
export type PrinterColumn = z.infer<typeof printerColumn>;

const version = z.object({
  name: text,
  served: z.boolean(),
  storage: z.boolean(),
  deprecated: z.boolean().optional(),
  deprecationWarning: text.optional(),
  schema: z.object({ openAPIV3Schema: freeForm.optional() }).optional(),
  subresources: z.object({ status: freeForm.optional(), scale: freeForm.optional() }).optional(),
  additionalPrinterColumns: z.array(printerColumn).optional(),
  selectableFields: z.array(z.object({ jsonPath: text })).optional(),
});

export const customResourceDefinitionSchema = kindSchema('apiextensions.k8s.io/v1', 'CustomResourceDefinition', {
  spec: z.object({
    group: text,
    scope: z.enum(['Cluster', 'Namespaced']),
    names,
    versions: z.array(version).min(1),
    preserveUnknownFields: z.boolean().optional(),
    conversion: z.object({ strategy: z.enum(['None', 'Webhook']), webhook: freeForm.optional() }).optional(),
  }),
  status: z
    .object({
      conditions: listMap(condition, 'type').optional(),
      acceptedNames: names.optional(),
      storedVersions: z.array(text).optional(),
      observedGeneration: z.int().optional(),
    })
    .optional(),
});
export type CustomResourceDefinition = z.infer<typeof customResourceDefinitionSchema>;
