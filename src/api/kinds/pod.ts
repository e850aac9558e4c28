import { z } from 'zod';
import { container, resources } from './container.ts';
import {
  condition,
  freeForm,
  int32,
  intOrString,
  kindSchema,
  labelSelector,
  listMap,
  localObjectReference,
  objectMeta,
  quantities,
  text,
  textMap,
  time,
} from './meta.ts';

const podSecurityContext = z.object({
  fsGroup: z.int().optional(),
  fsGroupChangePolicy: text.optional(),
  runAsGroup: z.int().optional(),
  runAsNonRoot: z.boolean().optional(),
  runAsUser: z.int().optional(),
  supplementalGroups: z.array(z.int()).optional(),
  supplementalGroupsPolicy: text.optional(),
  sysctls: z.array(z.object({ name: text, value: text })).optional(),
  seLinuxChangePolicy: text.optional(),
  seLinuxOptions: freeForm.optional(),
  seccompProfile: freeForm.optional(),
  appArmorProfile: freeForm.optional(),
  windowsOptions: freeForm.optional(),
});

const toleration = z.object({
  key: text.optional(),
  operator: text.optional(),
  value: text.optional(),
  effect: z.enum(['NoSchedule', 'PreferNoSchedule', 'NoExecute']).optional(),
  tolerationSeconds: z.int().optional(),
});

/** A volume has its name and, of many sources, one; Myelin looks into none. */
const volume = z.looseObject({ name: text });

export const podSpec = z.object({
  containers: listMap(container, 'name').min(1),
  initContainers: listMap(container, 'name').optional(),
  ephemeralContainers: listMap(container.extend({ targetContainerName: text.optional() }), 'name').optional(),
  volumes: listMap(volume, 'name').optional(),
  nodeName: text.optional(),
  nodeSelector: textMap.optional(),
  serviceAccountName: text.optional(),
  serviceAccount: text.optional(),
  automountServiceAccountToken: z.boolean().optional(),
  restartPolicy: z.enum(['Always', 'OnFailure', 'Never']).optional(),
  terminationGracePeriodSeconds: z.int().min(0).optional(),
  activeDeadlineSeconds: z.int().min(1).optional(),
  dnsPolicy: z.enum(['ClusterFirst', 'ClusterFirstWithHostNet', 'Default', 'None']).optional(),
  dnsConfig: z
    .object({
      nameservers: z.array(text).optional(),
      searches: z.array(text).optional(),
      options: z.array(z.object({ name: text.optional(), value: text.optional() })).optional(),
    })
    .optional(),
  hostNetwork: z.boolean().optional(),
  hostPID: z.boolean().optional(),
  hostIPC: z.boolean().optional(),
  hostUsers: z.boolean().optional(),
  hostname: text.optional(),
  hostnameOverride: text.optional(),
  subdomain: text.optional(),
  setHostnameAsFQDN: z.boolean().optional(),
  hostAliases: listMap(z.object({ ip: text, hostnames: z.array(text).optional() }), 'ip').optional(),
  shareProcessNamespace: z.boolean().optional(),
  enableServiceLinks: z.boolean().optional(),
  securityContext: podSecurityContext.optional(),
  imagePullSecrets: listMap(localObjectReference, 'name').optional(),
  affinity: freeForm.optional(),
  schedulerName: text.optional(),
  schedulingGates: listMap(z.object({ name: text }), 'name').optional(),
  tolerations: z.array(toleration).optional(),
  topologySpreadConstraints: listMap(
    z.looseObject({ topologyKey: text, whenUnsatisfiable: text.optional(), labelSelector: labelSelector.optional() }),
    'topologyKey',
    'whenUnsatisfiable',
  ).optional(),
  priorityClassName: text.optional(),
  priority: int32.optional(),
  preemptionPolicy: text.optional(),
  runtimeClassName: text.optional(),
  overhead: quantities.optional(),
  os: z.object({ name: text }).optional(),
  readinessGates: z.array(z.object({ conditionType: text })).optional(),
  resourceClaims: listMap(freeForm, 'name').optional(),
  resources: resources.optional(),
  workloadRef: freeForm.optional(),
});
export type PodSpec = z.infer<typeof podSpec>;

const containerStatus = z.object({
  name: text,
  ready: z.boolean().optional(),
  started: z.boolean().optional(),
  restartCount: int32.optional(),
  image: text.optional(),
  imageID: text.optional(),
  containerID: text.optional(),
  state: freeForm.optional(),
  lastState: freeForm.optional(),
  resources: freeForm.optional(),
  allocatedResources: quantities.optional(),
  allocatedResourcesStatus: z.array(freeForm).optional(),
  volumeMounts: z.array(freeForm).optional(),
  user: freeForm.optional(),
  stopSignal: text.optional(),
});
export type ContainerStatus = z.infer<typeof containerStatus>;

const podCondition = condition.extend({ lastProbeTime: time.optional() });

export const podStatus = z.object({
  phase: z.enum(['Pending', 'Running', 'Succeeded', 'Failed', 'Unknown']).optional(),
  conditions: listMap(podCondition, 'type').optional(),
  message: text.optional(),
  reason: text.optional(),
  observedGeneration: z.int().optional(),
  hostIP: text.optional(),
  hostIPs: listMap(z.object({ ip: text.optional() }), 'ip').optional(),
  podIP: text.optional(),
  podIPs: listMap(z.object({ ip: text.optional() }), 'ip').optional(),
  startTime: time.optional(),
  nominatedNodeName: text.optional(),
  qosClass: text.optional(),
  resize: text.optional(),
  initContainerStatuses: z.array(containerStatus).optional(),
  containerStatuses: z.array(containerStatus).optional(),
  ephemeralContainerStatuses: z.array(containerStatus).optional(),
  resourceClaimStatuses: z.array(freeForm).optional(),
  extendedResourceClaimStatus: freeForm.optional(),
  allocatedResources: quantities.optional(),
  resources: freeForm.optional(),
});
export type PodStatus = z.infer<typeof podStatus>;

export const podSchema = kindSchema('v1', 'Pod', { spec: podSpec, status: podStatus.optional() });
export type Pod = z.infer<typeof podSchema>;

/** What Deployments make pods from. */
const podTemplate = z.object({ metadata: objectMeta.optional(), spec: podSpec });

export const deploymentSchema = kindSchema('apps/v1', 'Deployment', {
  spec: z.object({
    replicas: int32.min(0).optional(),
    selector: labelSelector,
    template: podTemplate,
    strategy: z
      .object({
        type: z.enum(['Recreate', 'RollingUpdate']).optional(),
        rollingUpdate: z
          .object({ maxUnavailable: intOrString.optional(), maxSurge: intOrString.optional() })
          .optional(),
      })
      .optional(),
    minReadySeconds: int32.min(0).optional(),
    revisionHistoryLimit: int32.min(0).optional(),
    progressDeadlineSeconds: int32.min(0).optional(),
    paused: z.boolean().optional(),
  }),
  status: z
    .object({
      observedGeneration: z.int().optional(),
      replicas: int32.optional(),
      updatedReplicas: int32.optional(),
      readyReplicas: int32.optional(),
      availableReplicas: int32.optional(),
      unavailableReplicas: int32.optional(),
      terminatingReplicas: int32.optional(),
      collisionCount: int32.optional(),
      conditions: listMap(condition.extend({ lastUpdateTime: time.optional() }), 'type').optional(),
    })
    .optional(),
});
export type Deployment = z.infer<typeof deploymentSchema>;
