import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Container, Pod } from '../../api/kinds.ts';
import type { ContainerSpec, Mount } from './container.ts';
import type { NodeContext } from './context.ts';
import { environmentOf, expand, hostnameOf, type Sources } from './environment.ts';
import { programFor } from './images.ts';
import { podFiles } from './pod-files.ts';
import { privilegesOf } from './privileges.ts';
import type { Sandbox } from './sandbox.ts';
import { makeVolumes, mountsOf } from './volumes.ts';

/** Names of a pod's places on its node. */
export function podPaths(node: NodeContext, uid: string): { directory: string; cgroup: string } {
  return { directory: join(node.podsDirectory, uid), cgroup: join(node.cgroup, uid) };
}

export function logFile(node: NodeContext, pod: Pod, container: string): string {
  const { namespace, name } = pod.metadata;
  return join(node.logsDirectory, `${namespace}_${name}_${container}.log`);
}

/**
 * Everything that one start of a container needs, from its manifest.
 * @returns The spec, or what is missing for it.
 */
export function containerSpec(
  node: NodeContext,
  pod: Pod,
  container: Container,
  sandbox: Sandbox,
  sources: Sources,
): ContainerSpec | { readonly missing: string } {
  const { directory, cgroup } = podPaths(node, pod.metadata.uid ?? '');
  const environment = environmentOf(pod, container, sources);
  if ('missing' in environment) return environment;
  const volumes = makeVolumes(pod.spec, join(directory, 'volumes'), sources);
  if ('missing' in volumes) return volumes;
  const program = programFor(container, node.paths);
  const env = { ...environment.env, ...program.env, MYELIN_SERVICE: serviceName(pod, container) };
  mkdirSync(node.logsDirectory, { recursive: true });
  return {
    name: container.name,
    command: program.command.map((word) => expand(word, env)),
    env,
    workingDir: container.workingDir ?? '/',
    netns: sandbox.netns,
    cgroup: join(cgroup, container.name),
    directory: join(directory, container.name),
    log: logFile(node, pod, container.name),
    mounts: [...programMounts(node), ...mountsOf(container, volumes.paths)],
    files: {
      ...podFiles(pod.spec, {
        namespace: pod.metadata.namespace ?? '',
        hostname: pod.spec.hostNetwork === true ? node.name : hostnameOf(pod),
        addresses: sandbox.addresses,
        dnsAddress: node.dnsAddress,
        clusterDomain: node.clusterDomain,
        machineResolvConf: existsSync('/etc/resolv.conf') ? readFileSync('/etc/resolv.conf', 'utf8') : '',
      }),
      ...program.files,
    },
    privileges: privilegesOf(pod.spec, container),
  };
}

/** Where a container finds Node, the stand-ins and the source tree, wherever those are mounted from. */
function programMounts({ paths, stagedPrograms }: NodeContext): Mount[] {
  const sources = new Map([
    [paths.repository, paths.repository],
    [paths.programs, stagedPrograms],
  ]);
  if (!paths.node.startsWith(`${paths.repository}/`)) sources.set(paths.node, paths.node);
  return [...sources].map(([target, source]) => ({ source, target, readOnly: true }));
}

/** What a person calls the service that a pod is part of. */
function serviceName({ metadata }: Pod, container: Container): string {
  const { labels = {} } = metadata;
  return labels.app ?? labels['app.kubernetes.io/name'] ?? metadata.generateName?.replace(/-$/, '') ?? container.name;
}
