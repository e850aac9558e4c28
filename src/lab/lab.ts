import { existsSync } from 'node:fs';
import { isApiError } from '../api/client/error.ts';
import type { Api, ObjectList } from '../api/client/types.ts';
import { type Deployment, type KubeObject, kinds, type Live } from '../api/kinds.ts';
import type { ManifestObject } from '../api/manifest.ts';
import { removePinDirectory } from '../kernel/bpffs.ts';
import { createCgroup, removeCgroup } from '../kernel/cgroup.ts';
import { run } from '../kernel/command.ts';
import { deleteNamespace } from '../kernel/netns.ts';
import { connectApi } from './connect.ts';
import { restartPods } from './daemon/control.ts';
import { type DownReport, down } from './down.ts';
import { LabError } from './error.ts';
import { type Applied, applyAll, applyFiles, applyObjects, deleteFiles, type ManifestOptions } from './manifests.ts';
import { pkiPaths } from './pki.ts';
import type { HostPlan, LabPlan } from './plan.ts';
import { isOver, isReady } from './pod-phase.ts';
import { containerOf, findPod, type PodTarget } from './pods.ts';
import { confined, type LaunchOptions, launch, stopProcess, waitUntil } from './process.ts';
import { enterCommand } from './runner/container.ts';
import { timestamp } from './runner/pod-status.ts';
import { type AgentSettings, agentName, logsDirectory, nodeCgroup, proxyNamespace, services } from './services.ts';
import { type LabState, type ProcessRecord, planOfState, readState, soleLab, writeState } from './state.ts';
import { type LabStatus, labStatus } from './status.ts';

const stopGraceMs = 5000;

export interface WaitReadyOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Absent: all namespaces. */
  readonly namespace?: string;
  /** Told of what is being waited for. */
  readonly say?: (text: string) => void;
}

export interface EnterOptions {
  /** Root with every privilege in place of the container's own user. */
  readonly privileged?: boolean;
}

/** A lab that is up, or on its way. */
export class Lab {
  readonly plan: LabPlan;
  #api: Api | undefined;

  private constructor(plan: LabPlan) {
    this.plan = plan;
  }

  /** @param name Default: the only one there is. @throws {LabError} `NoSuchLab` */
  static open(name: string = soleLab()): Lab {
    const state = readState(name);
    if (state === undefined) throw new LabError('NoSuchLab', `there is no lab ${name}: start it with 'myelin lab up'`);
    return new Lab(planOfState(state));
  }

  get name(): string {
    return this.plan.name;
  }

  /** The cluster's API as its administrator, reachable from any namespace of this machine. */
  get api(): Api {
    this.#api ??= connectApi(this.plan);
    return this.#api;
  }

  get state(): LabState {
    const state = readState(this.name);
    if (state === undefined) throw new LabError('NoSuchLab', `the lab ${this.name} is gone`);
    return state;
  }

  /** @throws {LabError} `NoSuchNode` */
  node(name: string): HostPlan {
    const node = this.plan.nodes.find((each) => each.name === name);
    if (node !== undefined) return node;
    const names = this.plan.nodes.map((each) => each.name).join(', ');
    throw new LabError('NoSuchNode', `the lab ${this.name} has no node ${name}; it has ${names}`);
  }

  /** Applies manifests: all of them or, where one is not what it should be, none. @throws {ManifestError} */
  apply(files: readonly string[], options: ManifestOptions = {}): Promise<Applied[]> {
    return applyFiles(this.api, files, options);
  }

  /** As {@link apply}, of manifests that were loaded before. */
  applyManifests(manifests: readonly ManifestObject[], options: ManifestOptions = {}): Promise<Applied[]> {
    return applyAll(this.api, manifests, options.signal);
  }

  applyObjects(objects: readonly KubeObject[], options: ManifestOptions = {}): Promise<Applied[]> {
    return applyObjects(this.api, objects, options);
  }

  /** Deletes what manifests name, and waits until it is gone. @throws {ManifestError} */
  delete(files: readonly string[], options: ManifestOptions = {}): Promise<Applied[]> {
    return deleteFiles(this.api, files, options);
  }

  /** The command line that runs a command in a container, and the pod that it is in. @throws {LabError} `NoSuchPod` */
  async podCommand(target: PodTarget, command: readonly string[], options: EnterOptions = {}): Promise<string[]> {
    const pod = await findPod(this.api, target);
    return enterCommand(containerOf(this.plan, pod, target.container), command, options);
  }

  /** The command line that runs a command in the namespace of a node, or of `control` or `world`. @throws {LabError} `NoSuchNode` */
  hostCommand(host: string, command: readonly string[]): string[] {
    const { control, world } = this.plan;
    const { netns } = host === 'control' ? control : host === 'world' ? world : this.node(host);
    return ['nsenter', `--net=${netns}`, '--', ...command];
  }

  /**
   * The command line of a long-lived helper of somebody's own in such a namespace, or in `fabric` (a capture, a server
   * outside): in the lab's cgroup, so that `down` ends it.
   */
  helperCommand(host: string, command: readonly string[]): string[] {
    const { control, world, fabric, cgroup } = this.plan;
    const hosts: Record<string, { netns: string }> = { control, world, fabric };
    const { netns } = hosts[host] ?? this.node(host);
    return confined(command, { netns, cgroup: `${cgroup}/control` });
  }

  /**
   * Waits until every pod is ready (or has run to its end) and every Deployment has all its pods.
   * @throws {LabError} `NotReady` with who is not
   */
  async waitReady({ timeoutMs = 120_000, signal, namespace, say }: WaitReadyOptions = {}): Promise<void> {
    const scope = namespace === undefined ? {} : { namespace };
    await waitUntil(
      async () => {
        const [pods, deployments] = await Promise.all([
          this.api.list(kinds.Pod, scope),
          this.api.list(kinds.Deployment, scope),
        ]);
        const waiting = [
          ...deployments.entries.filter(({ object }) => object !== undefined && !isComplete(object)),
          ...pods.entries.filter(({ object }) => object !== undefined && !isReady(object) && !isOver(object)),
        ].map(({ key }) => key);
        const text = [...new Set(waiting)].join(', ');
        say?.(text);
        return waiting.length === 0 || text;
      },
      {
        what: 'these are not ready',
        code: 'NotReady',
        timeoutMs,
        everyMs: 200,
        ...(signal === undefined ? {} : { signal }),
      },
    );
  }

  /** Where the API does not answer, what the machine alone knows. */
  async status(): Promise<LabStatus> {
    try {
      const [nodes, pods] = await Promise.all([this.api.list(kinds.Node), this.api.list(kinds.Pod)]);
      return labStatus(this.state, understood(nodes), understood(pods));
    } catch (error) {
      if (!isApiError(error, 'Unreachable')) throw error;
      return { ...labStatus(this.state, [], []), unreachable: error.message };
    }
  }

  /** Whether the API answers. */
  async answers(): Promise<boolean> {
    try {
      await this.api.list(kinds.Node);
      return true;
    } catch {
      return false;
    }
  }

  /** Says to the API which nodes there are, as kubelets do. */
  async createNodes(): Promise<void> {
    const now = timestamp(new Date());
    await Promise.all(
      this.plan.nodes.map((node) =>
        this.api.create(kinds.Node, {
          apiVersion: 'v1',
          kind: 'Node',
          metadata: { name: node.name, labels: { 'kubernetes.io/hostname': node.name, 'kubernetes.io/os': 'linux' } },
          spec: {},
          status: {
            addresses: [
              ...node.addresses.map((address) => ({ type: 'InternalIP', address })),
              { type: 'Hostname', address: node.name },
            ],
            conditions: [
              {
                type: 'Ready',
                status: 'True',
                reason: 'LabNodeReady',
                lastHeartbeatTime: now,
                lastTransitionTime: now,
              },
            ],
            nodeInfo: { kubeletVersion: 'myelin-lab', operatingSystem: 'linux' },
          },
        }),
      ),
    );
  }

  /** Ends a node's agent, kindly or (`SIGKILL`) not. Its engine, its datapath and its pods go on. */
  stopAgent(name: string, signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    return this.#stop(agentName(this.node(name)), signal);
  }

  /** Starts a node's agent in place of one that has ended, as `up` did but for these settings. */
  startAgent(name: string, settings: AgentSettings = {}): ProcessRecord {
    return this.#start(services.agent(this.plan, this.node(name), { ...this.state.agents, ...settings }));
  }

  /** Ends the API server, the controller or the lab's daemon: nodes and pods go on with what they know. */
  stopService(name: 'api' | 'controller' | 'labd', signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    return this.#stop(name, signal);
  }

  /** Starts it again, with the data that it had. @param extra More flags for the controller, as they are. */
  startService(name: 'api' | 'controller' | 'labd', extra: readonly string[] = []): ProcessRecord {
    return this.#start(name === 'controller' ? services.controller(this.plan, extra) : services[name](this.plan));
  }

  /** The cgroup with a node's agent, its engine and its proxy. */
  nodeCgroup(name: string): string {
    return nodeCgroup(this.plan, this.node(name));
  }

  /** Of the administrator; its server answers in the lab's control namespace only. */
  get kubeconfig(): string {
    return pkiPaths(this.plan).kubeconfig('admin');
  }

  /** The file with what a container has printed. @throws {LabError} `NoSuchPod` */
  async logFile(target: PodTarget): Promise<string> {
    const { metadata, spec } = await findPod(this.api, target);
    const container = target.container ?? spec.containers[0]?.name ?? '';
    const file = `${logsDirectory(this.plan)}/pods/${metadata.namespace}_${metadata.name}_${container}.log`;
    if (existsSync(file)) return file;
    throw new LabError('NoSuchPod', `container ${container} of pod ${metadata.name} has not started yet`);
  }

  /**
   * A power cut for a node: its agent, engine and proxy, the datapath's pins and its pods' processes and namespaces are gone at
   * once, what is on its disk (the run directory) stays; then all is started again.
   */
  async restartNode(name: string, settings: AgentSettings = {}): Promise<void> {
    const node = this.node(name);
    await this.stopAgent(name, 'SIGKILL');
    await removeCgroup(this.nodeCgroup(name));
    createCgroup(this.nodeCgroup(name));
    removePinDirectory(`${this.plan.bpf}/${node.name}`);
    deleteNamespace(proxyNamespace(this.plan, node));
    await loseNetwork(node.netns);
    await restartPods(this.plan, name);
    this.startAgent(name, settings);
  }

  /** Removes the lab with everything that is in it. */
  down(): Promise<DownReport> {
    return down(this.name);
  }

  async #stop(name: string, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const found = this.state.processes.find((process) => process.name === name);
    if (found === undefined) throw new LabError('ProcessFailed', `the lab ${this.name} has no process ${name}`);
    await stopProcess(found, signal === 'SIGTERM' ? stopGraceMs : 0);
  }

  #start(options: LaunchOptions): ProcessRecord {
    const record = launch(options);
    const { state } = this;
    writeState({ ...state, processes: [...state.processes.filter(({ name }) => name !== record.name), record] });
    return record;
  }
}

/** Whatever a node's kernel was told and would forget: programs on its devices, packet filters. */
async function loseNetwork(netns: string): Promise<void> {
  await run('tc', ['qdisc', 'del', 'dev', 'eth0', 'clsact'], { netns }).catch(() => undefined);
  await run('nft', ['flush', 'ruleset'], { netns });
}

function isComplete({ spec, status = {}, metadata }: Deployment): boolean {
  const { replicas = 1 } = spec;
  const { observedGeneration = 0, readyReplicas = 0, updatedReplicas = 0 } = status;
  return observedGeneration >= (metadata.generation ?? 0) && readyReplicas >= replicas && updatedReplicas >= replicas;
}

function understood<T extends KubeObject>({ entries }: ObjectList<T>): Live<T>[] {
  return entries.flatMap(({ object }) => (object === undefined ? [] : [object]));
}
