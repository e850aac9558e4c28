import { controllerUrl, pkiPaths } from './pki.ts';
import { type HostPlan, type LabPlan, namespacePath, ports } from './plan.ts';
import type { LaunchOptions } from './process.ts';
import { agentCommand, compileCache, nodeCommand, repository } from './repository.ts';
import type { LabState } from './state.ts';

/** What a user may change of the lab's agents; `extra` are more flags, as they are. */
export type AgentSettings = LabState['agents'];

/** The one place that knows the command lines of the cluster's own processes. */
export const services = {
  api(plan: LabPlan): LaunchOptions {
    const pki = pkiPaths(plan);
    return inControl(plan, 'api', [
      `${repository}/src/api/server/main.ts`,
      ...['--listen', `${plan.control.addresses[0]}:${ports.api}`],
      ...['--data', `${plan.directory}/api.sqlite`],
      // A crash of the machine takes the lab's namespaces too: nothing of it needs to outlive that.
      '--no-fsync',
      ...['--tls-cert', pki.certificate('api')],
      ...['--tls-key', pki.key('api')],
      ...['--client-ca', pki.bundle],
      ...['--service-cidrs', plan.serviceCidrs.join(',')],
    ]);
  },

  /** @param extra More flags, as they are. */
  controller(plan: LabPlan, extra: readonly string[] = []): LaunchOptions {
    const pki = pkiPaths(plan);
    return inControl(plan, 'controller', [
      `${repository}/src/controller/main.ts`,
      ...['--listen', `${plan.control.addresses[0]}:${ports.controller}`],
      ...['--kubeconfig', pki.kubeconfig('controller')],
      ...['--ca-dir', pki.caDirectory],
      ...['--tls-cert', pki.certificate('controller-server')],
      ...['--tls-key', pki.key('controller-server')],
      ...['--trust-domain', plan.trustDomain],
      ...['--pod-cidrs', plan.podCidrs.join(',')],
      ...extra,
    ]);
  },

  /** Scheduler, controllers of workloads, and the nodes' kubelets. */
  labd(plan: LabPlan): LaunchOptions {
    return inControl(plan, 'labd', [`${repository}/src/lab/daemon/main.ts`, '--lab', plan.name]);
  },

  agent(plan: LabPlan, node: HostPlan, settings: AgentSettings = {}): LaunchOptions {
    const pki = pkiPaths(plan);
    const { driver, clusterDefault, svidTtlSeconds, rekeySeconds, logLevel, extra = [] } = settings;
    const optional = (flag: string, value: string | number | undefined) =>
      value === undefined ? [] : [flag, String(value)];
    return {
      ...service(
        plan,
        agentName(node),
        [
          ...['--node', node.name],
          ...['--run-dir', nodeDirectory(plan, node)],
          ...['--bpf-dir', `${plan.bpf}/${node.name}`],
          ...['--proxy-netns', proxyNamespace(plan, node)],
          ...['--uplink', 'eth0'],
          ...['--kubeconfig', pki.kubeconfig(node.name)],
          ...['--controller', controllerUrl(plan)],
          ...['--node-cert', pki.certificate(node.name)],
          ...['--node-key', pki.key(node.name)],
          ...['--ca', pki.bundle],
          ...['--trust-domain', plan.trustDomain],
          ...['--pod-cidrs', plan.podCidrs.join(',')],
          ...['--service-cidrs', plan.serviceCidrs.join(',')],
          ...optional('--driver', driver),
          ...optional('--cluster-default', clusterDefault),
          ...optional('--svid-ttl-seconds', svidTtlSeconds),
          ...optional('--rekey-seconds', rekeySeconds),
          ...optional('--log-level', logLevel),
          ...extra,
        ],
        agentCommand,
      ),
      netns: node.netns,
      cgroup: nodeCgroup(plan, node),
    };
  },
} as const;

/** Of a node's agent, where the rest of the project looks for it: the socket is `agent.sock` in it. */
export function nodeDirectory(plan: LabPlan, node: { readonly name: string }): string {
  return `${plan.directory}/${node.name}`;
}

/** The network namespace of a node's proxy, which goes with the lab's others. */
export function proxyNamespace(plan: LabPlan, node: { readonly name: string }): string {
  return namespacePath(plan.name, `proxy-${node.name}`);
}

/** What a node runs itself: the agent, and the engine and the proxy that the agent starts and that outlive it. */
export function nodeCgroup(plan: LabPlan, node: { readonly name: string }): string {
  return `${plan.cgroup}/${node.name}/system`;
}

export function controlCgroup(plan: LabPlan): string {
  return `${plan.cgroup}/control`;
}

/** The node's kubelet: what tries the probes of its pods. */
export function kubeletCgroup(plan: LabPlan, node: { readonly name: string }): string {
  return `${plan.cgroup}/${node.name}/kubelet`;
}

/** Below which each pod of a node has its own. */
export function podsCgroup(plan: LabPlan, node: { readonly name: string }): string {
  return `${plan.cgroup}/${node.name}/pods`;
}

export function logsDirectory(plan: LabPlan): string {
  return `${plan.directory}/log`;
}

export function agentName(node: { readonly name: string }): string {
  return `agent/${node.name}`;
}

function inControl(plan: LabPlan, name: string, args: readonly string[]): LaunchOptions {
  return { ...service(plan, name, args), netns: plan.control.netns, cgroup: controlCgroup(plan) };
}

function service(plan: LabPlan, name: string, args: readonly string[], program: readonly string[] = nodeCommand) {
  return {
    name,
    command: [...program, ...args],
    log: `${logsDirectory(plan)}/${name.replace('/', '-')}.log`,
    env: compileCache,
  };
}
