import { existsSync, mkdirSync } from 'node:fs';
import { installDefinitions } from '../api/definitions.ts';
import { loadManifests } from '../api/manifest.ts';
import { bpffsRoot, isBpffs } from '../kernel/bpffs.ts';
import { cgroupRoot, createCgroup } from '../kernel/cgroup.ts';
import { requireCapabilities } from '../kernel/probe.ts';
import { down } from './down.ts';
import { LabError } from './error.ts';
import { createFabric } from './fabric.ts';
import { Lab } from './lab.ts';
import { createPki } from './pki.ts';
import { type LabPlan, type PlanOptions, planLab } from './plan.ts';
import { isRunning, type LaunchOptions, launch, readStartTime, waitUntil } from './process.ts';
import { stagePrograms } from './programs/stage.ts';
import {
  type AgentSettings,
  controlCgroup,
  kubeletCgroup,
  logsDirectory,
  nodeCgroup,
  nodeDirectory,
  podsCgroup,
  services,
} from './services.ts';
import { type LabState, type ProcessRecord, readState, writeState } from './state.ts';
import { systemManifest } from './system.ts';

export interface UpOptions extends Omit<PlanOptions, 'cgroupRoot'>, AgentSettings {
  /** Manifests (files or directories) to apply when the cluster is there. */
  readonly files?: readonly string[];
  /** Wait until every pod is ready, at most so long; 0: do not wait. Default 120 s. */
  readonly readyTimeoutMs?: number;
  /** How long the API, and then the agents, may take to start. Default 30 s. */
  readonly startTimeoutMs?: number;
  /** Without name service a lab is up sooner. Default true. */
  readonly dns?: boolean;
  readonly signal?: AbortSignal;
}

/** One thing that `up` does, for whoever shows its progress. */
export interface UpStep {
  readonly title: string;
  /** @param say Tells what is being waited for. */
  readonly run: (say: (text: string) => void) => Promise<void>;
}

/** What `up` will do, and the lab that there will be. */
export interface UpPlan {
  readonly plan: LabPlan;
  /**
   * To be run one after the other; when one fails, or nobody wants the rest, `down` takes all of it back. The last may
   * fail with `NotReady`: then there is a lab to look at.
   */
  readonly steps: readonly UpStep[];
  /** The lab, after the last step. */
  readonly lab: () => Lab;
}

/**
 * Prepares to bring a lab up. Nothing has happened yet.
 * @throws {LabError} `BadName`; `LabExists`; {ManifestError} with everything that is wrong with the manifests
 */
export function prepareUp(options: UpOptions): UpPlan {
  const plan = planLab({ ...options, cgroupRoot: cgroupRoot() });
  const present = readState(plan.name);
  if (present !== undefined) refuseIfAlive(present);
  const { files = [], readyTimeoutMs = 120_000, startTimeoutMs = 30_000 } = options;
  // Before anything is started: whoever has a wrong manifest is to hear of that at once.
  const manifests = loadManifests(files);
  const { driver, clusterDefault, svidTtlSeconds, rekeySeconds, logLevel, extra } = options;
  const agentSettings = { driver, clusterDefault, svidTtlSeconds, rekeySeconds, logLevel, extra };
  const book = new StateBook(plan, agentSettings);
  const signal = options.signal ?? new AbortController().signal;
  let lab: Lab | undefined;
  const opened = () => {
    lab ??= Lab.open(plan.name);
    return lab;
  };
  const start = (launched: LaunchOptions) => book.add(launch(launched));
  const steps: UpStep[] = [
    {
      title: `lay out ${counted(plan.nodes.length, 'node')} on an underlay`,
      run: async () => {
        await requireCapabilities();
        if (present !== undefined) await down(plan.name);
        book.begin();
        makeDirectories(plan);
        await Promise.all([createFabric(plan), createPki(plan)]);
        stagePrograms(`${plan.directory}/programs`);
      },
    },
    {
      title: 'start the API and the controllers',
      run: async () => {
        const api = start(services.api(plan));
        // These two try again until the API answers; being on their way by then is what saves time.
        const labd = start(services.labd(plan));
        const controller = start(services.controller(plan));
        const processes = [api, labd, controller];
        const options = { timeoutMs: startTimeoutMs, signal, processes };
        await waitUntil(() => opened().answers(), { ...options, what: 'the API did not answer' });
        await Promise.all([opened().createNodes(), installDefinitions(opened().api, signal)]);
      },
    },
    {
      title: `start ${counted(plan.nodes.length, 'agent')}${files.length > 0 ? ' and apply the manifests' : ''}`,
      run: async (say) => {
        const agents = plan.nodes.map((node) => start(services.agent(plan, node, agentSettings)));
        // Pods are placed while the agents are on their way; they wait for theirs.
        await Promise.all([
          (async () => {
            if (options.dns !== false) await opened().applyObjects(systemManifest(plan), { signal });
            await opened().applyManifests(manifests, { signal });
          })(),
          waitUntil(
            async () => {
              const waiting = plan.nodes.filter((node) => !existsSync(`${nodeDirectory(plan, node)}/cni.sock`));
              say(waiting.map(({ name }) => name).join(', '));
              return waiting.length === 0 || `no agent on ${waiting.map(({ name }) => name).join(', ')}`;
            },
            { what: 'the agents did not start', timeoutMs: startTimeoutMs, signal, processes: agents },
          ),
        ]);
        book.complete();
      },
    },
  ];
  if (readyTimeoutMs > 0)
    steps.push({
      title: 'wait for the pods',
      run: (say) => opened().waitReady({ timeoutMs: readyTimeoutMs, signal, say }),
    });
  const unlessAborted = ({ title, run }: UpStep): UpStep => ({
    title,
    run: async (say) => {
      signal.throwIfAborted();
      await run(say);
    },
  });
  return { plan, steps: steps.map(unlessAborted), lab: opened };
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}

/** Brings a lab up. Whatever goes wrong on the way, nothing of it is left. */
export async function up(options: UpOptions = {}): Promise<Lab> {
  const { plan, steps, lab } = prepareUp(options);
  try {
    for (const step of steps) await step.run(() => {});
  } catch (error) {
    await down(plan.name);
    throw error;
  }
  return lab();
}

/** A lab that is up, or that another process is bringing up, is not to be built over; what a crash left is. */
function refuseIfAlive({ name, complete, starter }: LabState): void {
  if (complete)
    throw new LabError(
      'LabExists',
      `the lab ${name} is up already: 'myelin lab down' first, or give it another name with --lab`,
    );
  if (starter.pid !== process.pid && isRunning(starter))
    throw new LabError('LabExists', `process ${starter.pid} is bringing up the lab ${name} at this moment`);
}

function makeDirectories(plan: LabPlan): void {
  mkdirSync(logsDirectory(plan), { recursive: true, mode: 0o755 });
  mkdirSync(`${plan.directory}/pods`, { recursive: true, mode: 0o755 });
  for (const node of plan.nodes) mkdirSync(nodeDirectory(plan, node), { recursive: true, mode: 0o700 });
  const nodeGroups = plan.nodes.flatMap((node) =>
    [nodeCgroup, kubeletCgroup, podsCgroup].map((group) => group(plan, node)),
  );
  try {
    for (const group of [controlCgroup(plan), ...nodeGroups]) createCgroup(group);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new LabError('Missing', `cgroup v2 cannot be written to (${why}): in a container, run it privileged`, {
      cause,
    });
  }
}

/** The lab's state on disk, kept ahead of what is done. */
class StateBook {
  #state: LabState;

  constructor({ name, nodes, mtu }: LabPlan, agents: AgentSettings) {
    const createdAt = new Date().toISOString();
    this.#state = {
      version: 1,
      name,
      createdAt,
      complete: false,
      starter: { pid: process.pid, startTime: readStartTime(process.pid) ?? '' },
      nodes: nodes.length,
      mtu,
      agents,
      mountedBpffs: false,
      processes: [],
    };
  }

  begin(): void {
    const mountedBpffs = !existsSync(bpffsRoot) || !isBpffs(bpffsRoot);
    this.#save({ mountedBpffs });
  }

  add(process: ProcessRecord): ProcessRecord {
    this.#save({ processes: [...this.#state.processes, process] });
    return process;
  }

  complete(): void {
    this.#save({ complete: true });
  }

  #save(change: Partial<LabState>): void {
    this.#state = { ...this.#state, ...change };
    writeState(this.#state);
  }
}
