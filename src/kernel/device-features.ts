import { z } from 'zod';
import { run } from './command.ts';

const features = z.array(z.record(z.string(), z.unknown())).min(1);
const feature = z.object({ active: z.boolean() });

/** What crypto in a network device is called by the kernel. */
export const espOffload = 'esp-hw-offload';

/**
 * @returns Whether the device says that it has the feature (`ethtool -k`), and has it turned on.
 * @throws {KernelError} `Missing` where there is no ethtool; `Command`, `Errno`
 */
export async function deviceHas(device: string, name: string): Promise<boolean> {
  const { stdout } = await run('ethtool', ['--json', '--show-features', device]);
  const [found] = features.parse(JSON.parse(stdout));
  return feature.safeParse(found?.[name]).data?.active === true;
}
