import type { Container, PodSpec, Probe } from '../../kinds.ts';

/** Kubernetes' defaults for a pod or a pod template (pkg/apis/core/v1/defaults.go), as far as the fields are known here. */
export function setPodDefaults(spec: PodSpec): void {
  spec.restartPolicy ??= 'Always';
  spec.terminationGracePeriodSeconds ??= 30;
  spec.dnsPolicy ??= 'ClusterFirst';
  spec.schedulerName ??= 'default-scheduler';
  spec.securityContext ??= {};
  spec.serviceAccountName ||= spec.serviceAccount;
  if (spec.serviceAccountName) spec.serviceAccount = spec.serviceAccountName;
  for (const container of allContainers(spec)) setContainerDefaults(container, spec.hostNetwork === true);
}

function allContainers(spec: PodSpec): Container[] {
  return [...(spec.initContainers ?? []), ...spec.containers, ...(spec.ephemeralContainers ?? [])];
}

function setContainerDefaults(container: Container, hostNetwork: boolean): void {
  container.imagePullPolicy ??= isLatest(container.image ?? '') ? 'Always' : 'IfNotPresent';
  container.terminationMessagePath ??= '/dev/termination-log';
  container.terminationMessagePolicy ??= 'File';
  container.resources ??= {};
  for (const port of container.ports ?? []) {
    port.protocol ??= 'TCP';
    if (hostNetwork) port.hostPort ??= port.containerPort;
  }
  for (const { valueFrom } of container.env ?? []) if (valueFrom?.fieldRef) valueFrom.fieldRef.apiVersion ??= 'v1';
  for (const probe of [container.livenessProbe, container.readinessProbe, container.startupProbe])
    if (probe !== undefined) setProbeDefaults(probe);
  for (const handler of [container.lifecycle?.postStart, container.lifecycle?.preStop])
    if (handler?.httpGet !== undefined) setHttpDefaults(handler.httpGet);
  const { limits, requests } = container.resources;
  if (limits !== undefined) container.resources.requests = { ...limits, ...requests };
}

function setProbeDefaults(probe: Probe): void {
  probe.timeoutSeconds ??= 1;
  probe.periodSeconds ??= 10;
  probe.successThreshold ??= 1;
  probe.failureThreshold ??= 3;
  if (probe.httpGet !== undefined) setHttpDefaults(probe.httpGet);
  if (probe.grpc !== undefined) probe.grpc.service ??= '';
}

function setHttpDefaults(get: NonNullable<Probe['httpGet']>): void {
  get.path ||= '/';
  get.scheme ??= 'HTTP';
}

function isLatest(image: string): boolean {
  const name = image.slice(image.lastIndexOf('/') + 1);
  if (name.includes('@')) return false;
  const colon = name.indexOf(':');
  return colon < 0 || name.slice(colon + 1) === 'latest';
}

/** Guaranteed: every container's limits for cpu and memory equal its requests. BestEffort: nothing is asked for. */
export function qosClass(spec: PodSpec): 'Guaranteed' | 'Burstable' | 'BestEffort' {
  const containers = [...spec.containers, ...(spec.initContainers ?? [])];
  const asks = containers.some(({ resources }) =>
    [resources?.requests, resources?.limits].some((part) => part?.cpu !== undefined || part?.memory !== undefined),
  );
  if (!asks) return 'BestEffort';
  const guaranteed = containers.every(({ resources }) =>
    (['cpu', 'memory'] as const).every((name) => {
      const limit = resources?.limits?.[name];
      return limit !== undefined && String(limit) === String(resources?.requests?.[name] ?? limit);
    }),
  );
  return guaranteed ? 'Guaranteed' : 'Burstable';
}
