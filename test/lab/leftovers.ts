import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { cgroupRoot } from '../../src/kernel/cgroup.ts';
import { readStartTime } from '../../src/lab/process.ts';

/**
 * Everything on this machine that is, or looks as if it were, of a lab.
 * @returns What it is, one line each; none when the lab is gone.
 */
export function leftovers(lab: string): string[] {
  const found: string[] = [];
  const directories = [`/run/myelin/lab/${lab}`, `${cgroupRoot()}/myelin-lab-${lab}`, `/sys/fs/bpf/myelin-lab-${lab}`];
  for (const path of directories) if (existsSync(path)) found.push(`directory ${path}`);
  if (existsSync('/run/netns'))
    for (const name of readdirSync('/run/netns'))
      if (name.startsWith(`myelin.${lab}.`)) found.push(`network namespace ${name}`);
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n'))
    if (line.includes(`/myelin.${lab}.`) || line.includes(`/lab/${lab}/`)) found.push(`mount ${line}`);
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    // One that has ended and that init has yet to notice is nobody's process any more.
    if (readStartTime(Number(pid)) === undefined) continue;
    const command = readOrNothing(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim();
    const group = readOrNothing(`/proc/${pid}/cgroup`);
    if (command.includes(`/lab/${lab}/`) || group.includes(`myelin-lab-${lab}`))
      found.push(`process ${pid} ${command}`);
  }
  return found;
}

function readOrNothing(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
