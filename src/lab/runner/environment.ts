import type { Container, Pod } from '../../api/kinds.ts';

/** The data of ConfigMaps and Secrets (decoded), by name; undefined where there is none. */
export interface Sources {
  configMap(name: string): Readonly<Record<string, string>> | undefined;
  secret(name: string): Readonly<Record<string, string>> | undefined;
}

const path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * A container's environment: the runtime's own, envFrom, env with `$(NAME)` expanded, in Kubernetes' order.
 * @returns The variables, or what is missing (a kubelet's CreateContainerConfigError).
 */
export function environmentOf(
  pod: Pod,
  container: Container,
  sources: Sources,
): { readonly env: Record<string, string> } | { readonly missing: string } {
  const env: Record<string, string> = { PATH: path, HOME: '/', HOSTNAME: hostnameOf(pod) };
  for (const { prefix = '', configMapRef, secretRef } of container.envFrom ?? []) {
    const reference = configMapRef ?? secretRef;
    const kind = configMapRef !== undefined ? 'configMap' : 'secret';
    const data = sources[kind](reference?.name ?? '');
    if (data === undefined && reference?.optional !== true) return { missing: `${kind} ${reference?.name} not found` };
    for (const [key, value] of Object.entries(data ?? {})) env[`${prefix}${key}`] = value;
  }
  for (const { name, value, valueFrom } of container.env ?? []) {
    if (valueFrom === undefined) {
      env[name] = expand(value ?? '', env);
      continue;
    }
    const { fieldRef, configMapKeyRef, secretKeyRef } = valueFrom;
    if (fieldRef !== undefined) env[name] = fieldOf(pod, fieldRef.fieldPath) ?? '';
    for (const [kind, reference] of [
      ['configMap', configMapKeyRef],
      ['secret', secretKeyRef],
    ] as const) {
      if (reference === undefined) continue;
      const found = sources[kind](reference.name ?? '')?.[reference.key];
      if (found !== undefined) env[name] = found;
      else if (reference.optional !== true) return { missing: `${kind} ${reference.name} has no ${reference.key}` };
    }
  }
  return { env };
}

/** The name that the pod's own processes see. */
export function hostnameOf(pod: Pod): string {
  return (pod.spec.hostname ?? pod.metadata.name ?? '').slice(0, 63);
}

/** `$(NAME)` becomes the variable's value, `$$(NAME)` the text `$(NAME)`; an unknown name stays as it is. */
export function expand(text: string, env: Readonly<Record<string, string>>): string {
  return text.replaceAll(/\$(\$|\(([^)]+)\))/g, (whole, rest: string, name: string | undefined) =>
    rest === '$' ? '$' : name === undefined ? whole : (env[name] ?? whole),
  );
}

/** The fields of the downward API. */
function fieldOf({ metadata, spec, status }: Pod, fieldPath: string): string | undefined {
  const [, map, key] = /^metadata\.(labels|annotations)\['(.+)'\]$/.exec(fieldPath) ?? [];
  if (key !== undefined) return (map === 'labels' ? metadata.labels : metadata.annotations)?.[key];
  const fields: Record<string, string | undefined> = {
    'metadata.name': metadata.name,
    'metadata.namespace': metadata.namespace,
    'metadata.uid': metadata.uid,
    'spec.nodeName': spec.nodeName,
    'spec.serviceAccountName': spec.serviceAccountName,
    'status.hostIP': status?.hostIP,
    'status.hostIPs': status?.hostIPs?.map(({ ip }) => ip).join(','),
    'status.podIP': status?.podIP,
    'status.podIPs': status?.podIPs?.map(({ ip }) => ip).join(','),
  };
  return fields[fieldPath];
}
