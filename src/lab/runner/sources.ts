import { isApiError } from '../../api/client/error.ts';
import type { Api } from '../../api/client/types.ts';
import { type Container, kinds, type PodSpec } from '../../api/kinds.ts';
import type { Sources } from './environment.ts';

/** Fetches the ConfigMaps and Secrets that a pod names; most name none. @throws {ApiError} */
export async function loadSources(api: Api, namespace: string, spec: PodSpec): Promise<Sources> {
  const names = referencesOf(spec);
  const configMaps = new Map<string, Record<string, string>>();
  const secrets = new Map<string, Record<string, string>>();
  await Promise.all([
    ...[...names.configMaps].map(async (name) => {
      const found = await orUndefined(api.get(kinds.ConfigMap, { namespace, name }));
      if (found !== undefined) configMaps.set(name, { ...decoded(found.binaryData), ...found.data });
    }),
    ...[...names.secrets].map(async (name) => {
      const found = await orUndefined(api.get(kinds.Secret, { namespace, name }));
      if (found !== undefined) secrets.set(name, decoded(found.data));
    }),
  ]);
  return { configMap: (name) => configMaps.get(name), secret: (name) => secrets.get(name) };
}

function referencesOf(spec: PodSpec): { configMaps: Set<string>; secrets: Set<string> } {
  const configMaps = new Set<string>();
  const secrets = new Set<string>();
  const add = (set: Set<string>, name: unknown) => {
    if (typeof name === 'string' && name !== '') set.add(name);
  };
  const containers: Container[] = [...(spec.initContainers ?? []), ...spec.containers];
  for (const { env = [], envFrom = [] } of containers) {
    for (const { valueFrom } of env) {
      add(configMaps, valueFrom?.configMapKeyRef?.name);
      add(secrets, valueFrom?.secretKeyRef?.name);
    }
    for (const { configMapRef, secretRef } of envFrom) {
      add(configMaps, configMapRef?.name);
      add(secrets, secretRef?.name);
    }
  }
  for (const volume of spec.volumes ?? []) {
    add(configMaps, nameIn(volume.configMap, 'name'));
    add(secrets, nameIn(volume.secret, 'secretName'));
  }
  return { configMaps, secrets };
}

function nameIn(source: unknown, key: string): unknown {
  return typeof source === 'object' && source !== null
    ? Object.entries(source).find(([name]) => name === key)?.[1]
    : '';
}

function decoded(data: Readonly<Record<string, string>> | undefined): Record<string, string> {
  return Object.fromEntries(
    Object.entries(data ?? {}).map(([key, value]) => [key, Buffer.from(value, 'base64').toString('utf8')]),
  );
}

async function orUndefined<T>(promise: Promise<T>): Promise<T | undefined> {
  try {
    return await promise;
  } catch (error) {
    if (isApiError(error, 'NotFound')) return undefined;
    throw error;
  }
}
