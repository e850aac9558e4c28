import { existsSync, readdirSync, rmdirSync, rmSync } from 'node:fs';
import { bpffsRoot, isBpffs, removePinDirectory } from '../kernel/bpffs.ts';
import { cgroupRoot, removeCgroup } from '../kernel/cgroup.ts';
import { run } from '../kernel/command.ts';
import { removeNamespaces } from './fabric.ts';
import { labDirectory, labsDirectory, planLab } from './plan.ts';
import { stopProcess } from './process.ts';
import { listLabs, readState, requireRoot } from './state.ts';

/** What was there and has gone. */
export interface DownReport {
  readonly processes: number;
  readonly namespaces: number;
}

const graceMs = 1500;

/**
 * Removes every trace of a lab: processes, namespaces with their devices, cgroups, BPF pins, files. Works from what the
 * lab's name implies as much as from its state, so that half a lab goes as well as a whole one; what is not there is no error.
 * Nothing is ended that is not in the lab's own cgroup, or recorded with the very start time that it has.
 * @throws {LabError} `BadName`, `Missing`; {KernelError} where something does not go
 */
export async function down(name: string): Promise<DownReport> {
  requireRoot();
  const plan = planLab({ name, cgroupRoot: cgroupRoot() });
  const state = readStateOrNothing(name);
  const processes = state?.processes ?? [];
  await Promise.all(processes.map((process) => stopProcess(process, graceMs)));
  await removeCgroup(plan.cgroup);
  const namespaces = removeNamespaces(name);
  removePinDirectory(plan.bpf);
  rmSync(labDirectory(name), { recursive: true, force: true });
  if (existsSync(labsDirectory) && readdirSync(labsDirectory).length === 0) removeIfEmpty(labsDirectory, '/run/myelin');
  if (state?.mountedBpffs === true) await unmountBpffs();
  return { processes: processes.length, namespaces };
}

function readStateOrNothing(name: string) {
  try {
    return readState(name);
  } catch {
    // A state that cannot be read is no reason to leave the rest.
    return undefined;
  }
}

/** Unmounts the BPF file system that a lab mounted, unless somebody has come to use it. */
async function unmountBpffs(): Promise<void> {
  if (listLabs().length > 0 || !isBpffs(bpffsRoot) || readdirSync(bpffsRoot).length > 0) return;
  await run('umount', [bpffsRoot]).catch(() => undefined);
}

function removeIfEmpty(...directories: readonly string[]): void {
  for (const directory of directories)
    try {
      rmdirSync(directory);
    } catch {
      return;
    }
}
