import { z } from 'zod';
import type { PodView } from '../../model/endpoint.ts';
import type { Protocol } from '../../model/port.ts';

/** A pod as policies see it, and the ports that its containers declare, named or not. */
export interface CheckPod extends PodView {
  readonly ports: readonly { readonly protocol: Protocol; readonly port: number }[];
}

const labels = z.record(z.string(), z.string()).nullish();
const meta = z.looseObject({ name: z.string().nullish(), namespace: z.string().nullish(), labels }).nullish();
const container = z.looseObject({
  ports: z
    .array(
      z.looseObject({
        name: z.string().nullish(),
        protocol: z.enum(['TCP', 'UDP', 'SCTP']).nullish(),
        containerPort: z.number(),
      }),
    )
    .nullish(),
});
const podSpec = z.looseObject({
  serviceAccountName: z.string().nullish(),
  hostNetwork: z.boolean().nullish(),
  nodeName: z.string().nullish(),
  containers: z.array(container).nullish(),
});
const template = z.looseObject({ metadata: meta, spec: podSpec.nullish() });
const workload = z.looseObject({
  kind: z.enum([
    'Pod',
    'Deployment',
    'StatefulSet',
    'DaemonSet',
    'ReplicaSet',
    'ReplicationController',
    'Job',
    'CronJob',
  ]),
  metadata: meta,
  spec: z.looseObject({}).nullish(),
});
const withTemplate = z.looseObject({ spec: z.looseObject({ template }) });
const cronJob = z.looseObject({ spec: z.looseObject({ jobTemplate: withTemplate }) });
const namespace = z.looseObject({
  kind: z.literal('Namespace'),
  metadata: z.looseObject({ name: z.string(), labels }),
});

/** The pods that an object is or makes, one for all that are alike. @returns Undefined for what makes no pods. */
export function readWorkload(object: unknown, defaultNamespace = 'default'): CheckPod | undefined {
  const read = workload.safeParse(object);
  if (!read.success) return undefined;
  const { kind, metadata } = read.data;
  const made = kind === 'Pod' ? template.safeParse(object).data : templateOf(object);
  if (made === undefined) return undefined;
  const containers = made.spec?.containers ?? [];
  const ports = containers.flatMap((one) => one.ports ?? []);
  const place = metadata?.namespace || defaultNamespace;
  return {
    namespace: place,
    name: metadata?.name ?? '',
    uid: `${kind} ${place}/${metadata?.name ?? ''}`,
    labels: made.metadata?.labels ?? {},
    serviceAccount: made.spec?.serviceAccountName ?? 'default',
    node: made.spec?.nodeName ?? '',
    addresses: [],
    hostNetwork: made.spec?.hostNetwork === true,
    namedPorts: ports.flatMap(({ name, protocol, containerPort }) =>
      name == null ? [] : [{ name, protocol: protocol ?? 'TCP', port: containerPort }],
    ),
    ports: ports.map(({ protocol, containerPort }) => ({ protocol: protocol ?? 'TCP', port: containerPort })),
  };
}

function templateOf(object: unknown): z.infer<typeof template> | undefined {
  const direct = withTemplate.safeParse(object);
  if (direct.success) return direct.data.spec.template;
  return cronJob.safeParse(object).data?.spec.jobTemplate.spec.template;
}

/** A Namespace's name and labels, with the one that every namespace has. */
export function readNamespace(
  object: unknown,
): { readonly name: string; readonly labels: Record<string, string> } | undefined {
  const read = namespace.safeParse(object);
  if (!read.success) return undefined;
  const { name, labels: own } = read.data.metadata;
  return { name, labels: { 'kubernetes.io/metadata.name': name, ...own } };
}
