import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { keyOf } from '../../src/endpoint/endpoint.ts';
import type { State } from '../../src/endpoint/store.ts';
import { ip } from '../../src/kernel/ip.ts';
import { createNamespace, deleteNamespace } from '../../src/kernel/netns.ts';
import type { AgentSettings } from './agent.ts';

const root = resolve(import.meta.dirname, '../..');
export const plugin = join(root, 'bin/myelin-cni');

/** What one execution of the plugin gave. */
export interface Answer {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** From exec to the end of the process. */
  readonly ms: number;
}

/** The "error" structure that an execution printed. */
export interface Refusal {
  readonly cniVersion: string;
  readonly code: number;
  readonly msg: string;
  readonly details?: string;
}

export interface Call {
  readonly containerId?: string;
  readonly netns?: string;
  readonly ifName?: string;
  readonly args?: string;
  /** Merged into the node's configuration; a string is standard input as it is. */
  readonly config?: Readonly<Record<string, unknown>> | string;
  /** Further environment; undefined takes a variable away. */
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/** What an agent says when it starts to serve. */
export interface Started {
  readonly reconciled: { readonly kept: number; readonly dropped: number; readonly orphans: number };
  readonly endpoints: readonly { readonly containerId: string; readonly addresses: readonly string[] }[];
}

/** A node of its own: a namespace, an agent process in it, pods' namespaces, the real plugin. */
export class TestNode {
  readonly directory = mkdtempSync(join(tmpdir(), `myelin-cni-${process.pid}-`));
  readonly netns = join(this.directory, 'node');
  readonly socket = join(this.directory, 'run', 'cni.sock');
  readonly stateFile = join(this.directory, 'run', 'state.json');
  readonly journalFile = join(this.directory, 'journal');
  readonly #namespaces = [this.netns];
  readonly #children = new Set<ChildProcess>();
  #agent: ChildProcess | undefined;

  /** Makes a node, runs `job` with it, and leaves nothing behind. */
  static async use(job: (node: TestNode) => Promise<void>): Promise<void> {
    const node = new TestNode();
    try {
      await createNamespace(node.netns);
      await job(node);
    } finally {
      await node.#close();
    }
  }

  async #close(): Promise<void> {
    for (const child of this.#children) await end(child, 'SIGKILL');
    for (const path of this.#namespaces) deleteNamespace(path);
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** @param change `journal` is set to {@link journalFile} where a test looks at {@link journal}: writing it takes time. */
  async start(change: Partial<AgentSettings> = {}): Promise<Started> {
    const settings: AgentSettings = {
      socket: this.socket,
      stateFile: this.stateFile,
      cidrs: ['10.244.1.0/24', 'fd00:10:244:1::/64'],
      ...change,
    };
    const agent = this.#spawn(process.execPath, [join(import.meta.dirname, 'agent.ts'), JSON.stringify(settings)]);
    this.#agent = agent;
    assert.ok(agent.stdout);
    for await (const line of createInterface({ input: agent.stdout })) return JSON.parse(line);
    throw new Error('the agent ended before it served');
  }

  /** Waits for the agent to end by itself. */
  async ended(): Promise<void> {
    const agent = this.#agent;
    if (agent !== undefined && agent.exitCode === null && agent.signalCode === null) await once(agent, 'close');
    this.#agent = undefined;
  }

  /** Ends the agent. @param signal SIGTERM lets it answer what it is at. */
  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    if (this.#agent !== undefined) await end(this.#agent, signal);
    this.#agent = undefined;
  }

  async restart(change: Partial<AgentSettings> = {}): Promise<Started> {
    await this.stop();
    return this.start(change);
  }

  /** @returns The path of a new namespace, as a runtime would make it for a pod. */
  async pod(name: string): Promise<string> {
    const path = join(this.directory, `pod-${name}`);
    await createNamespace(path);
    this.#namespaces.push(path);
    return path;
  }

  /** Ends a pod's namespace, as a runtime that calls no DEL. */
  dropPod(path: string): void {
    deleteNamespace(path);
  }

  /** Starts a program in a namespace of the test; it ends with the node. */
  daemon(netns: string, command: string, ...args: string[]): ChildProcess {
    return this.#spawn(command, args, netns);
  }

  #spawn(command: string, args: readonly string[], netns = this.netns): ChildProcess {
    const child = spawn('nsenter', [`--net=${netns}`, '--', command, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    this.#children.add(child);
    child.once('close', () => this.#children.delete(child));
    return child;
  }

  /** Executes the plugin as a runtime does. */
  async cni(command: string, call: Call = {}): Promise<Answer> {
    const { containerId = 'c1', netns = '', ifName = 'eth0', args = '', config = {}, env = {} } = call;
    const given = {
      CNI_COMMAND: command,
      CNI_CONTAINERID: containerId,
      CNI_NETNS: netns,
      CNI_IFNAME: ifName,
      CNI_ARGS: args,
    };
    const variables = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ...given, CNI_PATH: join(root, 'bin'), ...env };
    const whole = { cniVersion: '1.1.0', name: 'pods', type: 'myelin-cni', socket: this.socket };
    const input = typeof config === 'string' ? config : JSON.stringify({ ...whole, ...config });
    const started = performance.now();
    const child = spawn(plugin, [], { env: variables, stdio: ['pipe', 'pipe', 'pipe'] });
    const output = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const)
      child[name].setEncoding('utf8').on('data', (text: string) => {
        output[name] += text;
      });
    child.stdin.on('error', () => {}).end(input);
    await once(child, 'close');
    return { ...output, status: child.exitCode, ms: performance.now() - started };
  }

  /** @returns The result of a command that must succeed; undefined where it printed nothing. */
  async ok(command: string, call: Call = {}): Promise<unknown> {
    const { status, stdout, stderr } = await this.cni(command, call);
    assert.equal(status, 0, `${command}: ${stdout}${stderr}`);
    return stdout === '' ? undefined : JSON.parse(stdout);
  }

  /** @returns What ADD gave, as far as tests look at it. */
  async add(call: Call): Promise<AddResult> {
    const result = await this.ok('ADD', call);
    assert.ok(isAddResult(result), JSON.stringify(result));
    return result;
  }

  /** @returns The error of a command that must fail. */
  async refused(command: string, call: Call = {}): Promise<Refusal> {
    const { status, stdout, stderr } = await this.cni(command, call);
    assert.notEqual(status, 0, `${command} succeeded: ${stdout}`);
    assert.equal(stderr, '');
    const error: Refusal = JSON.parse(stdout);
    assert.ok(error.msg.length > 0 && typeof error.cniVersion === 'string', stdout);
    return error;
  }

  /** Hooks' calls so far: `<hook> <container> <up|down|absent>`. */
  get journal(): string[] {
    try {
      return readFileSync(this.journalFile, 'utf8').trim().split('\n');
    } catch {
      return [];
    }
  }

  /** What is on disk. */
  get state(): State {
    if (!existsSync(this.stateFile)) return { leases: [], endpoints: [] };
    return JSON.parse(readFileSync(this.stateFile, 'utf8'));
  }

  /** Fails unless the node's kernel and books have no trace of any pod. */
  async assertClean(): Promise<void> {
    const [links, routes4, routes6, neighbours, addresses] = await Promise.all(
      [['link'], ['-4', 'route'], ['-6', 'route'], ['neigh'], ['addr']].map((args) => ip(args, { netns: this.netns })),
    );
    const names = (list: unknown) => (Array.isArray(list) ? list.map((item: { ifname: string }) => item.ifname) : []);
    assert.deepEqual(names(links), ['lo']);
    assert.deepEqual([routes4, routes6, neighbours], [[], [], []]);
    assert.deepEqual(names(addresses), ['lo']);
    assert.deepEqual(this.state.endpoints.map(keyOf), []);
    assert.deepEqual(
      this.state.leases.filter((lease) => lease.releasedAt === undefined),
      [],
    );
  }
}

export interface AddResult {
  readonly cniVersion: string;
  readonly interfaces: readonly { readonly name: string; readonly mac: string; readonly sandbox?: string }[];
  readonly ips: readonly { readonly address: string; readonly gateway: string; readonly interface: number }[];
  readonly routes: readonly { readonly dst: string; readonly gw?: string }[];
}

function isAddResult(value: unknown): value is AddResult {
  return typeof value === 'object' && value !== null && 'interfaces' in value && 'ips' in value && 'routes' in value;
}

/** CNI_ARGS as a kubelet's runtime sets them. */
export function podArgs(name: string, uid = `uid-of-${name}`): string {
  return `IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=${name};K8S_POD_UID=${uid};K8S_POD_INFRA_CONTAINER_ID=x`;
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const closed = once(child, 'close');
  child.kill(signal);
  await closed;
}
