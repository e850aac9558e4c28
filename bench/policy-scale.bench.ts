import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { z } from 'zod';
import { percentile } from '../src/cli/percentile.ts';
import { absoluteBar, type BenchResult } from './result.ts';

/** More than a hundred, so that the 99th percentile is not the largest. */
const changes = 300;

const measured = z.object({
  fullMs: z.number(),
  times: z.array(z.object({ kind: z.string(), ms: z.number(), cpuMs: z.number() })),
  peakMib: z.number(),
});

/**
 * A thousand nodes, fifty thousand pods and five thousand policies of all kinds in the memory of one node's compiler, in a
 * process of its own: all of it compiled once, then one change after the other.
 */
export async function run(): Promise<BenchResult[]> {
  // Some room for what is young, a bound on what is old: much of a tight heap's time is collecting.
  const heap = ['--max-semi-space-size=8', '--max-old-space-size=300', '--v8-pool-size=1'];
  const child = join(import.meta.dirname, 'support/policy-scale.ts');
  const output = execFileSync(process.execPath, [...heap, child, String(changes)], { encoding: 'utf8' });
  const { fullMs, times, peakMib } = measured.parse(JSON.parse(output));
  const all = times.map(({ ms }) => ms);
  return [
    absoluteBar('one node’s share of 50,000 pods and 5,000 policies, compiled whole', 'ms', fullMs, { atMost: 5000 }),
    absoluteBar('one change of them, compiled and compared, p99', 'ms', percentile(all, 0.99), { atMost: 50 }),
    // On a machine that others use too, this is what the change itself takes.
    absoluteBar(
      'the same, processor time of the compiler’s thread, p99',
      'ms',
      percentile(
        times.map(({ cpuMs }) => cpuMs),
        0.99,
      ),
      {
        atMost: 50,
      },
    ),
    absoluteBar('the compiler’s resident memory with all of them', 'MiB', peakMib, { atMost: 400 }),
  ];
}
