import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { type EndpointReport, endpointSchema, flowSchema, type StatusReport, statusSchema } from '../../agent/wire.ts';
import { kinds, type Live, type Pod } from '../../api/kinds.ts';
import { Capture, type Captured } from '../../lab/capture.ts';
import type { Lab } from '../../lab/lab.ts';
import { nodeDirectory } from '../../lab/services.ts';
import { type IpAddress, type MacAddress, parseIp, parseMac } from '../../model/address.ts';
import type { FlowEvent } from '../../model/flow.ts';
import { type AgentAddress, askAgent } from '../agents.ts';

export interface Ran {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A lab with what the demo does to it again and again. */
export class Stage {
  readonly lab: Lab;

  constructor(lab: Lab) {
    this.lab = lab;
  }

  get agents(): AgentAddress[] {
    return this.lab.plan.nodes.map((node) => ({
      node: node.name,
      socket: join(nodeDirectory(this.lab.plan, node), 'agent.sock'),
    }));
  }

  /** Runs a command of `podCommand`, `hostCommand` or `helperCommand` to its end. */
  run([file = '', ...args]: readonly string[], input = ''): Promise<Ran> {
    return new Promise((resolve, reject) => {
      const child = spawn(file, args, { stdio: ['pipe', 'pipe', 'pipe'] });
      const output = { stdout: '', stderr: '' };
      child.stdout.on('data', (chunk: Buffer) => {
        output.stdout += chunk.toString('utf8');
      });
      child.stderr.on('data', (chunk: Buffer) => {
        output.stderr += chunk.toString('utf8');
      });
      child.once('error', reject);
      child.once('close', (status) => resolve({ ...output, status: status ?? 1 }));
      child.stdin.on('error', () => {});
      child.stdin.end(input);
    });
  }

  async inPod(namespace: string, pod: string, command: readonly string[], input?: string): Promise<Ran> {
    return this.run(await this.lab.podCommand({ namespace, pod }, command, { privileged: true }), input);
  }

  /** Puts frames onto a device, from inside a pod. */
  async injectFromPod(namespace: string, pod: string, frames: readonly Buffer[]): Promise<void> {
    this.#succeeded(await this.inPod(namespace, pod, this.#injector('eth0'), hexLines(frames)));
  }

  /** Puts frames onto the underlay, from a host that is neither pod nor node. */
  async injectFromWorld(frames: readonly Buffer[]): Promise<void> {
    this.#succeeded(await this.run(this.lab.hostCommand('world', this.#injector('eth0')), hexLines(frames)));
  }

  async pods(namespace: string): Promise<Live<Pod>[]> {
    const { entries } = await this.lab.api.list(kinds.Pod, { namespace });
    return entries.flatMap(({ object }) => object ?? []);
  }

  /** The one pod of a Deployment. */
  async podOf(namespace: string, app: string): Promise<Live<Pod>> {
    const pod = (await this.pods(namespace)).find(({ metadata }) => metadata.labels?.app === app);
    if (pod === undefined) throw new Error(`there is no pod of ${namespace}/${app}`);
    return pod;
  }

  async flows(query: Record<string, string> = {}): Promise<FlowEvent[]> {
    const path = `/flows?${new URLSearchParams({ last: '50000', ...query })}`;
    const lists = await Promise.all(
      this.agents.map((agent) => askAgent(agent, { path }, (value) => flowSchema.array().parse(value))),
    );
    return lists.flat();
  }

  async status(node: string): Promise<StatusReport> {
    return askAgent(this.#agent(node), { path: '/status' }, (value) => statusSchema.parse(value));
  }

  async endpoints(node: string): Promise<EndpointReport[]> {
    return askAgent(this.#agent(node), { path: '/endpoints' }, (value) => endpointSchema.array().parse(value));
  }

  /** How many packets a node dropped for a reason, by its datapath or its engine. */
  async dropped(node: string, ...reasons: readonly string[]): Promise<number> {
    const { drops } = await this.status(node);
    return reasons.reduce((sum, reason) => sum + (drops.datapath[reason] ?? 0) + (drops.tunnel[reason] ?? 0), 0);
  }

  /** Of a device in a pod or, without one, of a node or `world`. */
  async mac(where: { namespace: string; pod: string } | { host: string }, device = 'eth0'): Promise<MacAddress> {
    const show = ['ip', '-o', 'link', 'show', device];
    const { stdout } =
      'pod' in where
        ? await this.inPod(where.namespace, where.pod, show)
        : await this.run(this.lab.hostCommand(where.host, show));
    return parseMac(/link\/ether (\S+)/.exec(stdout)?.[1] ?? '');
  }

  #agent(node: string): AgentAddress {
    const agent = this.agents.find((each) => each.node === node);
    if (agent === undefined) throw new Error(`there is no agent of ${node}`);
    return agent;
  }

  #injector(device: string): string[] {
    return [process.execPath, '--disable-warning=ExperimentalWarning', join(import.meta.dirname, 'inject.ts'), device];
  }

  #succeeded(ran: Ran): void {
    if (ran.status !== 0) throw new Error(`a frame could not be sent: ${ran.stderr}`);
  }
}

export function addressOf(pod: Live<Pod>): IpAddress {
  return parseIp(pod.status?.podIP ?? '');
}

/** Captures the underlay while something happens. */
export async function captured<T>(stage: Stage, task: () => Promise<T>): Promise<{ result: T; capture: Captured }> {
  const capture = await Capture.start(stage.lab);
  try {
    const result = await task();
    return { result, capture: await capture.stop() };
  } catch (error) {
    await capture.stop();
    throw error;
  }
}

function hexLines(frames: readonly Buffer[]): string {
  return `${frames.map((frame) => frame.toString('hex')).join('\n')}\n`;
}
