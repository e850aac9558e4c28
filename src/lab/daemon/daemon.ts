import { rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { Server as NetServer } from 'node:net';
import type { Logger } from 'pino';
import { Reflector } from '../../api/client/reflector.ts';
import type { Api, ReflectorOptions } from '../../api/client/types.ts';
import { type KubeObject, kinds } from '../../api/kinds.ts';
import { apiSocket, controllerSocket, daemonSocket } from '../connect.ts';
import { Deployments, ownerIndex, ownersOf } from '../controllers/deployments.ts';
import { EndpointSlices, namespaceIndex } from '../controllers/endpoint-slices.ts';
import { Scheduler } from '../controllers/scheduler.ts';
import { type HostPlan, type LabPlan, ports } from '../plan.ts';
import { confined } from '../process.ts';
import { repository } from '../repository.ts';
import type { NodeContext } from '../runner/context.ts';
import { Prober } from '../runner/prober.ts';
import { PodRunner } from '../runner/runner.ts';
import { kubeletCgroup, logsDirectory, nodeDirectory, podsCgroup } from '../services.ts';
import { relay } from './relay.ts';

export interface LabDaemonDeps {
  readonly api: Api;
  readonly log: Logger;
}

/** Scheduler, workload controllers and every node's kubelet, over one copy of the cluster's objects. */
export class LabDaemon {
  readonly #plan: LabPlan;
  readonly #deps: LabDaemonDeps;
  readonly #stop = new AbortController();
  readonly #runner: PodRunner;
  readonly #reflectors;
  readonly #relays: NetServer[] = [];
  #control: Server | undefined;

  constructor(plan: LabPlan, deps: LabDaemonDeps) {
    this.#plan = plan;
    this.#deps = deps;
    const { api, log } = deps;
    const reflect = <T extends KubeObject>(options: ReflectorOptions<T>) =>
      new Reflector(options, { api, logger: log });
    this.#reflectors = {
      nodes: reflect({ resource: kinds.Node }),
      pods: reflect({
        resource: kinds.Pod,
        indexes: {
          [ownerIndex]: ({ raw }) => ownersOf(raw),
          [namespaceIndex]: ({ raw }) => [raw.metadata.namespace ?? ''],
        },
      }),
      services: reflect({ resource: kinds.Service }),
      slices: reflect({ resource: kinds.EndpointSlice }),
      deployments: reflect({ resource: kinds.Deployment }),
    };
    const nodes = plan.nodes.map((node) => nodeContext(plan, node));
    this.#runner = new PodRunner({ nodes }, { api, log, pods: this.#reflectors.pods });
  }

  /** @returns When requests are taken; the cluster's objects come when the API is there. */
  async start(): Promise<void> {
    const { api, log } = this.#deps;
    const { nodes, pods, services, slices, deployments } = this.#reflectors;
    const [host] = this.#plan.control.addresses;
    this.#relays.push(
      await relay(apiSocket(this.#plan), { host, port: ports.api }),
      await relay(controllerSocket(this.#plan), { host, port: ports.controller }),
    );
    this.#control = await this.#serve();
    for (const reflector of [nodes, pods, services, slices, deployments]) reflector.start();
    // Whoever decides by what is not there must know that everything that is there has come.
    await Promise.all([nodes, pods, services, slices, deployments].map(({ synced }) => synced));
    const { signal } = this.#stop;
    new Scheduler({ api, log, pods, nodes }).run(signal);
    new Deployments({ api, log, pods, deployments }).run(signal);
    new EndpointSlices({ api, log, pods, services, slices }).run(signal);
    this.#runner.start();
  }

  close(): void {
    this.#stop.abort();
    this.#runner.close();
    for (const each of this.#relays) each.close();
    this.#control?.close();
    for (const reflector of Object.values(this.#reflectors)) void reflector.close();
  }

  /** `POST /nodes/NAME/restart`: a power cut for a node's pods. */
  #serve(): Promise<Server> {
    const server = createServer((request, response) => {
      const [, node] = /^\/nodes\/([^/]+)\/restart$/.exec(request.url ?? '') ?? [];
      const answer = (status: number, message: string) => response.writeHead(status).end(JSON.stringify({ message }));
      if (request.method !== 'POST' || node === undefined) return answer(404, 'no such request');
      try {
        this.#runner.restartNode(node);
        return answer(200, 'restarted');
      } catch (error) {
        return answer(404, error instanceof Error ? error.message : String(error));
      }
    });
    rmSync(daemonSocket(this.#plan), { force: true });
    return new Promise((resolve, reject) => {
      server.once('error', reject).listen(daemonSocket(this.#plan), () => resolve(server));
    });
  }
}

function nodeContext(plan: LabPlan, node: HostPlan): NodeContext {
  const stagedPrograms = `${plan.directory}/programs`;
  const prober = confined([process.execPath, `${stagedPrograms}/prober.mjs`], {
    netns: node.netns,
    cgroup: kubeletCgroup(plan, node),
  });
  return {
    lab: plan.name,
    name: node.name,
    netns: node.netns,
    addresses: node.addresses,
    runDir: nodeDirectory(plan, node),
    cniPath: `${repository}/bin`,
    prober: new Prober(prober),
    cgroup: podsCgroup(plan, node),
    podsDirectory: `${plan.directory}/pods`,
    logsDirectory: `${logsDirectory(plan)}/pods`,
    dnsAddress: plan.dnsAddress,
    clusterDomain: plan.trustDomain,
    paths: { node: process.execPath, programs: '/.myelin', repository },
    stagedPrograms,
  };
}
