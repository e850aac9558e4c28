import { z } from 'zod';
import {
  condition,
  freeForm,
  int32,
  kindSchema,
  listMap,
  listSet,
  localObjectReference,
  objectReference,
  quantities,
  text,
  textMap,
  time,
} from './meta.ts';

export const namespaceSchema = kindSchema('v1', 'Namespace', {
  spec: z.object({ finalizers: z.array(text).optional() }).optional(),
  status: z
    .object({
      phase: z.enum(['Active', 'Terminating']).optional(),
      conditions: listMap(condition, 'type').optional(),
    })
    .optional(),
});
export type Namespace = z.infer<typeof namespaceSchema>;

const taint = z.object({
  key: text,
  value: text.optional(),
  effect: z.enum(['NoSchedule', 'PreferNoSchedule', 'NoExecute']),
  timeAdded: time.optional(),
});

const nodeCondition = condition.extend({ lastHeartbeatTime: time.optional() });

export const nodeSchema = kindSchema('v1', 'Node', {
  spec: z
    .object({
      podCIDR: text.optional(),
      podCIDRs: listSet(text).optional(),
      providerID: text.optional(),
      unschedulable: z.boolean().optional(),
      taints: z.array(taint).optional(),
      configSource: freeForm.optional(),
      externalID: text.optional(),
    })
    .optional(),
  status: z
    .object({
      phase: text.optional(),
      // One list, replaced as a whole: by Kubernetes' own merge key (type) a dual-stack node would keep one address.
      addresses: z.array(z.object({ type: text, address: text })).optional(),
      capacity: quantities.optional(),
      allocatable: quantities.optional(),
      conditions: listMap(nodeCondition, 'type').optional(),
      nodeInfo: freeForm.optional(),
      daemonEndpoints: freeForm.optional(),
      images: z.array(freeForm).optional(),
      volumesInUse: z.array(text).optional(),
      volumesAttached: z.array(freeForm).optional(),
      config: freeForm.optional(),
      runtimeHandlers: z.array(freeForm).optional(),
      features: freeForm.optional(),
      declaredFeatures: z.array(text).optional(),
    })
    .optional(),
});
export type Node = z.infer<typeof nodeSchema>;

export const serviceAccountSchema = kindSchema('v1', 'ServiceAccount', {
  automountServiceAccountToken: z.boolean().optional(),
  imagePullSecrets: z.array(localObjectReference).optional(),
  secrets: listMap(objectReference, 'name').optional(),
});
export type ServiceAccount = z.infer<typeof serviceAccountSchema>;

export const configMapSchema = kindSchema('v1', 'ConfigMap', {
  data: textMap.optional(),
  binaryData: textMap.optional(),
  immutable: z.boolean().optional(),
});
export type ConfigMap = z.infer<typeof configMapSchema>;

export const secretSchema = kindSchema('v1', 'Secret', {
  type: text.optional(),
  data: textMap.optional(),
  stringData: textMap.optional(),
  immutable: z.boolean().optional(),
});
export type Secret = z.infer<typeof secretSchema>;

export const eventSchema = kindSchema('v1', 'Event', {
  involvedObject: objectReference,
  reason: text.optional(),
  message: text.optional(),
  type: text.optional(),
  source: z.object({ component: text.optional(), host: text.optional() }).optional(),
  firstTimestamp: time.optional(),
  lastTimestamp: time.optional(),
  count: int32.optional(),
  eventTime: time.optional(),
  series: z.object({ count: int32.optional(), lastObservedTime: time.optional() }).optional(),
  action: text.optional(),
  related: objectReference.optional(),
  reportingComponent: text.optional(),
  reportingInstance: text.optional(),
});
export type Event = z.infer<typeof eventSchema>;

export const leaseSchema = kindSchema('coordination.k8s.io/v1', 'Lease', {
  spec: z
    .object({
      holderIdentity: text.optional(),
      leaseDurationSeconds: int32.optional(),
      acquireTime: time.optional(),
      renewTime: time.optional(),
      leaseTransitions: int32.optional(),
      strategy: text.optional(),
      preferredHolder: text.optional(),
    })
    .optional(),
});
export type Lease = z.infer<typeof leaseSchema>;
