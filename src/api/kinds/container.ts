import { z } from 'zod';
import { freeForm, int32, intOrString, listMap, protocol, quantities, quantity, text } from './meta.ts';

const containerPort = z.object({
  name: text.optional(),
  containerPort: int32,
  protocol: protocol.optional(),
  hostPort: int32.optional(),
  hostIP: text.optional(),
});
export type ContainerPort = z.infer<typeof containerPort>;

const keyRef = z.object({ name: text.optional(), key: text, optional: z.boolean().optional() });
const envVar = z.object({
  name: text,
  value: text.optional(),
  valueFrom: z
    .object({
      fieldRef: z.object({ fieldPath: text, apiVersion: text.optional() }).optional(),
      resourceFieldRef: z
        .object({ resource: text, containerName: text.optional(), divisor: quantity.optional() })
        .optional(),
      configMapKeyRef: keyRef.optional(),
      secretKeyRef: keyRef.optional(),
      fileKeyRef: freeForm.optional(),
    })
    .optional(),
});
export type EnvVar = z.infer<typeof envVar>;

const envSource = z.object({ name: text.optional(), optional: z.boolean().optional() });
export const resources = z.object({
  requests: quantities.optional(),
  limits: quantities.optional(),
  claims: z.array(freeForm).optional(),
});
const httpGet = z.object({
  path: text.optional(),
  port: intOrString,
  host: text.optional(),
  scheme: z.enum(['HTTP', 'HTTPS']).optional(),
  httpHeaders: z.array(z.object({ name: text, value: text })).optional(),
});
const exec = z.object({ command: z.array(text).optional() });
const tcpSocket = z.object({ port: intOrString, host: text.optional() });
const probe = z.object({
  exec: exec.optional(),
  httpGet: httpGet.optional(),
  tcpSocket: tcpSocket.optional(),
  grpc: z.object({ port: int32, service: text.optional() }).optional(),
  initialDelaySeconds: int32.optional(),
  periodSeconds: int32.optional(),
  timeoutSeconds: int32.optional(),
  successThreshold: int32.optional(),
  failureThreshold: int32.optional(),
  terminationGracePeriodSeconds: z.int().optional(),
});
export type Probe = z.infer<typeof probe>;

const lifecycleHandler = z.object({
  exec: exec.optional(),
  httpGet: httpGet.optional(),
  tcpSocket: tcpSocket.optional(),
  sleep: z.object({ seconds: z.int() }).optional(),
});
const securityContext = z.object({
  allowPrivilegeEscalation: z.boolean().optional(),
  privileged: z.boolean().optional(),
  readOnlyRootFilesystem: z.boolean().optional(),
  runAsNonRoot: z.boolean().optional(),
  runAsUser: z.int().optional(),
  runAsGroup: z.int().optional(),
  procMount: text.optional(),
  capabilities: z.object({ add: z.array(text).optional(), drop: z.array(text).optional() }).optional(),
  seLinuxOptions: freeForm.optional(),
  seccompProfile: freeForm.optional(),
  appArmorProfile: freeForm.optional(),
  windowsOptions: freeForm.optional(),
});

export const container = z.object({
  name: text,
  image: text.optional(),
  imagePullPolicy: z.enum(['Always', 'IfNotPresent', 'Never']).optional(),
  command: z.array(text).optional(),
  args: z.array(text).optional(),
  workingDir: text.optional(),
  ports: listMap(containerPort, 'containerPort', 'protocol').optional(),
  env: listMap(envVar, 'name').optional(),
  envFrom: z
    .array(
      z.object({
        prefix: text.optional(),
        configMapRef: envSource.optional(),
        secretRef: envSource.optional(),
      }),
    )
    .optional(),
  resources: resources.optional(),
  resizePolicy: z.array(freeForm).optional(),
  restartPolicy: text.optional(),
  restartPolicyRules: z.array(freeForm).optional(),
  volumeMounts: listMap(
    z.object({
      name: text,
      mountPath: text,
      readOnly: z.boolean().optional(),
      recursiveReadOnly: text.optional(),
      subPath: text.optional(),
      subPathExpr: text.optional(),
      mountPropagation: text.optional(),
    }),
    'mountPath',
  ).optional(),
  volumeDevices: listMap(z.object({ name: text, devicePath: text }), 'devicePath').optional(),
  livenessProbe: probe.optional(),
  readinessProbe: probe.optional(),
  startupProbe: probe.optional(),
  lifecycle: z
    .object({
      postStart: lifecycleHandler.optional(),
      preStop: lifecycleHandler.optional(),
      stopSignal: text.optional(),
    })
    .optional(),
  terminationMessagePath: text.optional(),
  terminationMessagePolicy: z.enum(['File', 'FallbackToLogsOnError']).optional(),
  securityContext: securityContext.optional(),
  stdin: z.boolean().optional(),
  stdinOnce: z.boolean().optional(),
  tty: z.boolean().optional(),
});
export type Container = z.infer<typeof container>;
