import { createHash } from 'node:crypto';
import { z } from 'zod';
import { run } from '../../kernel/command.ts';
import { KernelError } from '../../kernel/error.ts';
import { createNamespace, deleteNamespace } from '../../kernel/netns.ts';
import { type IpAddress, parseIp } from '../../model/address.ts';
import type { PodRef } from '../../model/endpoint.ts';
import { namespacePath } from '../plan.ts';
import type { NodeContext } from './context.ts';

/** A pod's network namespace, and what the CNI plugin put into it. */
export interface Sandbox {
  /** The container ID that the plugin knows it by. */
  readonly id: string;
  readonly netns: string;
  /** None of a pod that shares its node's network. */
  readonly addresses: readonly IpAddress[];
}

const cniResult = z.object({ ips: z.array(z.object({ address: z.string() })).min(1) });
const cniError = z.object({ code: z.number(), msg: z.string(), details: z.string().optional() });
const interfaceName = 'eth0';

/** How container runtimes set up a pod's namespace, whatever its CNI plugin does. */
const podSysctls =
  "echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start; echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range";

/** Where the node's agent takes requests of the plugin; there once it is up. */
export function cniSocket(node: NodeContext): string {
  return `${node.runDir}/cni.sock`;
}

/** What a sandbox would be called: known before it exists, so that what a crash left can be found. */
export function sandboxFor(node: NodeContext, pod: PodRef, attempt: number): Sandbox {
  const id = createHash('sha256').update(`${node.lab}/${pod.uid}/${attempt}`).digest('hex');
  return { id, netns: namespacePath(node.lab, `pod-${id.slice(0, 12)}`), addresses: [] };
}

/**
 * Makes the namespace and has the real plugin put it on the network, as a container runtime does.
 * @throws {KernelError} `Command` with the plugin's own words; nothing is left behind.
 */
export async function createSandbox(node: NodeContext, pod: PodRef, attempt: number): Promise<Sandbox> {
  const sandbox = sandboxFor(node, pod, attempt);
  await createNamespace(sandbox.netns);
  try {
    await run('sh', ['-c', podSysctls], { netns: sandbox.netns });
    const { ips } = cniResult.parse(JSON.parse(await callPlugin(node, 'ADD', sandbox, pod)));
    return { ...sandbox, addresses: ips.map(({ address }) => parseIp(address.split('/')[0] ?? '')) };
  } catch (error) {
    await removeSandbox(node, sandbox, pod).catch(() => {});
    throw error;
  }
}

/** Takes the pod off the network and removes its namespace. @throws {KernelError} where the plugin refuses; try again. */
export async function removeSandbox(node: NodeContext, sandbox: Sandbox, pod: PodRef): Promise<void> {
  await callPlugin(node, 'DEL', sandbox, pod);
  deleteNamespace(sandbox.netns);
}

async function callPlugin(node: NodeContext, command: 'ADD' | 'DEL', sandbox: Sandbox, pod: PodRef): Promise<string> {
  const args = {
    IgnoreUnknown: '1',
    K8S_POD_NAMESPACE: pod.namespace,
    K8S_POD_NAME: pod.name,
    K8S_POD_INFRA_CONTAINER_ID: sandbox.id,
    K8S_POD_UID: pod.uid,
  };
  const env = {
    CNI_COMMAND: command,
    CNI_CONTAINERID: sandbox.id,
    CNI_NETNS: sandbox.netns,
    CNI_IFNAME: interfaceName,
    CNI_PATH: node.cniPath,
    CNI_ARGS: Object.entries(args)
      .map(([key, value]) => `${key}=${value}`)
      .join(';'),
  };
  const config = { cniVersion: '1.1.0', name: 'myelin', type: 'myelin-cni', socket: cniSocket(node) };
  try {
    const { stdout } = await run(`${node.cniPath}/myelin-cni`, [], {
      netns: node.netns,
      env,
      input: JSON.stringify(config),
    });
    return stdout;
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    const answer = readError(String(error.data.stdout ?? ''));
    if (answer === undefined) throw error;
    const details = answer.details === undefined ? '' : `: ${answer.details}`;
    throw new KernelError(
      'Command',
      `CNI ${command}: ${answer.msg}${details} (code ${answer.code})`,
      error.data,
      error,
    );
  }
}

function readError(stdout: string): z.infer<typeof cniError> | undefined {
  try {
    return cniError.parse(JSON.parse(stdout));
  } catch {
    return undefined;
  }
}
