import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { z } from 'zod';
import { cgroupRoot } from '../kernel/cgroup.ts';
import { LabError } from './error.ts';
import { defaultLab, type LabPlan, labDirectory, labsDirectory, planLab } from './plan.ts';

const processRecord = z.object({
  /** Unique in its lab: `api`, `controller`, `labd`, `agent/node-1`. */
  name: z.string(),
  pid: z.int(),
  /** Field 22 of /proc/<pid>/stat: with the pid, a name that is never used twice. */
  startTime: z.string(),
  log: z.string(),
});
export type ProcessRecord = z.infer<typeof processRecord>;

const labState = z.object({
  version: z.literal(1),
  name: z.string(),
  createdAt: z.string(),
  /** Up was carried through; a state without it is what a crash or a Ctrl-C left. */
  complete: z.boolean(),
  /** Who brings it up: while that process runs, an incomplete lab is nobody else's to take down. */
  starter: z.object({ pid: z.int(), startTime: z.string() }),
  nodes: z.int(),
  mtu: z.int(),
  /** How its agents were asked to be, for those that are started again. */
  agents: z.object({
    driver: z.enum(['auto', 'engine', 'xfrm']).optional(),
    clusterDefault: z.enum(['allow', 'deny']).optional(),
    svidTtlSeconds: z.number().optional(),
    rekeySeconds: z.number().optional(),
    logLevel: z.string().optional(),
    extra: z.array(z.string()).optional(),
  }),
  /** The BPF file system was not mounted before. */
  mountedBpffs: z.boolean(),
  processes: z.array(processRecord),
});
/** What `down` needs to know of a lab, on disk before the thing itself exists. */
export type LabState = z.infer<typeof labState>;

/** @throws {LabError} `Missing`: namespaces, devices and BPF programs are root's. */
export function requireRoot(): void {
  if (process.geteuid?.() !== 0) throw new LabError('Missing', 'a lab needs root: run this with sudo');
}

/** @returns The state, or undefined where there is no such lab. @throws {LabError} `BadName` where it cannot be read; `Missing` */
export function readState(name: string): LabState | undefined {
  const path = statePath(name);
  requireRoot();
  if (!existsSync(path)) return undefined;
  const parsed = labState.safeParse(JSON.parse(readFileSync(path, 'utf8')));
  if (!parsed.success)
    throw new LabError('BadName', `${path} is not a lab's state: ${z.prettifyError(parsed.error)}; remove it by hand`);
  return parsed.data;
}

/** The plan that a lab was brought up by. @throws {LabError} `BadName`; {KernelError} `Missing` */
export function planOfState({ name, nodes, mtu }: LabState): LabPlan {
  return planLab({ name, nodes, mtu, cgroupRoot: cgroupRoot() });
}

/** Replaces the state, whole or not at all. */
export function writeState(state: LabState): void {
  const path = statePath(state.name);
  mkdirSync(labDirectory(state.name), { recursive: true, mode: 0o755 });
  writeFileSync(`${path}.tmp`, `${JSON.stringify(state, null, 2)}\n`, { mode: 0o600 });
  renameSync(`${path}.tmp`, path);
}

/** @returns Names of the labs of this machine, also of those that are half there. */
export function listLabs(): string[] {
  if (!existsSync(labsDirectory)) return [];
  return readdirSync(labsDirectory)
    .filter((name) => existsSync(statePath(name)))
    .sort();
}

/** The lab that is meant when none is named. @throws {LabError} `NoSuchLab` where that is not clear */
export function soleLab(): string {
  const chosen = process.env.MYELIN_LAB;
  if (chosen !== undefined && chosen !== '') return chosen;
  const labs = listLabs();
  const [only = defaultLab] = labs;
  if (labs.length <= 1 || labs.includes(defaultLab)) return labs.length <= 1 ? only : defaultLab;
  throw new LabError('NoSuchLab', `there are several labs (${labs.join(', ')}): say which with --lab`);
}

function statePath(name: string): string {
  return `${labDirectory(name)}/state.json`;
}
