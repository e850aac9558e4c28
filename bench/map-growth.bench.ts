import { join } from 'node:path';
import { z } from 'zod';
import { run as runCommand } from '../src/kernel/command.ts';
import { absoluteBar, type BenchResult } from './result.ts';

const measured = z.object({
  used: z.number(),
  capacity: z.number(),
  loadMs: z.number(),
  copyMs: z.number(),
  changeMs: z.number(),
  wholeMs: z.number(),
  heldUpMs: z.number(),
});

/**
 * What it takes to make the map of policy larger: with 220,000 entries and 110 pods, and with few of both. The agent goes
 * on meanwhile; how long its event loop was held up at most is what anybody notices.
 */
export async function run(): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  for (const [pods, blocks, ports] of [
    [10, 100, 10],
    [110, 1000, 220],
  ] as const) {
    const host = join(import.meta.dirname, 'support/growth-node.ts');
    const args = [...process.execArgv, host, `${pods}`, `${blocks}`, `${ports}`];
    const { stdout } = await runCommand('unshare', ['--net', process.execPath, ...args]);
    const { used, loadMs, copyMs, changeMs, wholeMs, heldUpMs } = measured.parse(JSON.parse(stdout));
    const ms = (value: number) => Math.round(value);
    console.error(
      `# ${used} entries, ${pods} pods: programs loaded beside ${ms(loadMs)} ms, copied ${ms(copyMs)}, changed over ${ms(changeMs)}`,
    );
    const what = `maps grow, ${used} entries and ${pods} pods`;
    results.push(
      absoluteBar(`${what}: the agent is held up`, 'ms', heldUpMs, { atMost: 100 }),
      absoluteBar(`${what}: in all`, 'ms', wholeMs, { atMost: 5000 }),
    );
  }
  return results;
}
