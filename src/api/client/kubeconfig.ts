import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parse } from 'yaml';
import { isList, isObject, type JsonObject, objectOr, stringOr } from '../json.ts';
import { ApiError } from './error.ts';
import type { ApiEndpoint } from './types.ts';

/**
 * Reads a kubeconfig file.
 * @param context The name of a context; without one, the file's current-context.
 * @throws {ApiError} `Kubeconfig` where it cannot be read, or asks for what is not supported: exec plugins, passwords, an
 * unverified server.
 */
export function readKubeconfig(file: string, context?: string): ApiEndpoint {
  const config = parseConfig(file);
  const fail = (why: string) => new ApiError('Kubeconfig', `${file}: ${why}`, { data: { file } });
  const contextName = context ?? stringOr(config['current-context'], '');
  const chosen = named(config.contexts, contextName, 'context');
  if (chosen === undefined) throw fail(`there is no context ${JSON.stringify(contextName)}`);
  const cluster = named(config.clusters, stringOr(chosen.cluster, ''), 'cluster');
  if (cluster === undefined) throw fail(`context ${contextName} names a cluster that is not in it`);
  const user = named(config.users, stringOr(chosen.user, ''), 'user');
  if (user === undefined) throw fail(`context ${contextName} names a user that is not in it`);
  if (cluster['insecure-skip-tls-verify'] === true)
    throw fail('insecure-skip-tls-verify is not supported; give certificate-authority');
  if (user.exec !== undefined || user['auth-provider'] !== undefined || user.username !== undefined)
    throw fail('only client certificates and tokens are supported to authenticate');
  const read = (from: JsonObject, name: string) => material(file, from, name);
  const ca = read(cluster, 'certificate-authority');
  if (ca === undefined) throw fail('the cluster has no certificate-authority');
  const cert = read(user, 'client-certificate');
  const key = read(user, 'client-key');
  const token = tokenOf(file, user);
  if ((cert === undefined || key === undefined) && token === undefined)
    throw fail('the user has neither client-certificate and client-key nor a token');
  const serverName = cluster['tls-server-name'];
  return {
    url: stringOr(cluster.server, ''),
    ca,
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(token === undefined ? {} : { token }),
    ...(typeof serverName === 'string' ? { serverName } : {}),
  };
}

const accountDirectory = '/var/run/secrets/kubernetes.io/serviceaccount';

/** @returns The API server as a pod sees it, or undefined outside of one. @throws {ApiError} `Kubeconfig` */
export function inClusterEndpoint(env: NodeJS.ProcessEnv, directory = accountDirectory): ApiEndpoint | undefined {
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port = '443' } = env;
  if (host === undefined || host === '') return undefined;
  return {
    url: `https://${host.includes(':') ? `[${host}]` : host}:${port}`,
    ca: readText(`${directory}/ca.crt`),
    // The kubelet renews the file.
    token: () => readText(`${directory}/token`).trim(),
  };
}

/** @returns A kubeconfig for `kubectl`, as YAML (which JSON is), with all material in it. */
export function writeKubeconfig(endpoint: ApiEndpoint, name: string): string {
  const base64 = (text: string | undefined) => (text === undefined ? undefined : Buffer.from(text).toString('base64'));
  const cluster = {
    server: endpoint.url,
    'certificate-authority-data': base64(endpoint.ca),
    'tls-server-name': endpoint.serverName,
  };
  const user = {
    'client-certificate-data': base64(endpoint.cert),
    'client-key-data': base64(endpoint.key),
    token: endpoint.token?.(),
  };
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name, cluster }],
    users: [{ name, user }],
    contexts: [{ name, context: { cluster: name, user: name } }],
    'current-context': name,
  };
  return `${JSON.stringify(config, undefined, 2)}\n`;
}

function parseConfig(file: string): JsonObject {
  try {
    const value: unknown = parse(readText(file));
    if (isObject(value)) return value;
  } catch (cause) {
    if (cause instanceof ApiError) throw cause;
    throw new ApiError('Kubeconfig', `${file} is not a kubeconfig: ${String(cause)}`, { cause, data: { file } });
  }
  throw new ApiError('Kubeconfig', `${file} is not a kubeconfig`, { data: { file } });
}

function named(list: unknown, name: string, field: string): JsonObject | undefined {
  const found = (isList(list) ? list : []).find((entry) => isObject(entry) && entry.name === name);
  const value = objectOr(found)[field];
  return isObject(value) ? value : undefined;
}

/** `name-data` in base64, or the file that `name` names, relative to the kubeconfig. */
function material(file: string, from: JsonObject, name: string): string | undefined {
  const data = from[`${name}-data`];
  if (typeof data === 'string' && data !== '') return Buffer.from(data, 'base64').toString('utf8');
  const path = from[name];
  return typeof path === 'string' && path !== '' ? readText(resolve(dirname(file), path)) : undefined;
}

function tokenOf(file: string, user: JsonObject): (() => string) | undefined {
  const { token, tokenFile } = user;
  if (typeof tokenFile === 'string' && tokenFile !== '')
    return () => readText(resolve(dirname(file), tokenFile)).trim();
  return typeof token === 'string' && token !== '' ? () => token : undefined;
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new ApiError(
      'Kubeconfig',
      `${path} cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`,
      {
        cause,
        data: { file: path },
      },
    );
  }
}
