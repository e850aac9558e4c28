/**
 * Runs every measurement in this folder and prints one table; writes build/bench.json.
 *
 *   node bench/run.ts [--only NAME]      NAME is a file's name without .bench.ts
 */
import { globSync, mkdirSync, writeFileSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { paint, table } from '../src/cli/output.ts';
import type { BenchResult } from './result.ts';

const { values } = parseArgs({ options: { only: { type: 'string' } } });
const root = resolve(import.meta.dirname, '..');
const names = globSync('bench/*.bench.ts', { cwd: root })
  .map((file) => basename(file, '.bench.ts'))
  .sort();
const chosen = names.filter((name) => values.only === undefined || name === values.only);
if (chosen.length === 0) {
  console.error(`bench: there is no ${values.only}; there are ${names.join(', ')}`);
  process.exit(2);
}

function isBench(module: unknown): module is { run: () => Promise<BenchResult[]> } {
  return typeof module === 'object' && module !== null && 'run' in module && typeof module.run === 'function';
}

const results: BenchResult[] = [];
let broken = 0;
for (const name of chosen) {
  process.stderr.write(paint('dim', `measuring ${name}…\n`));
  try {
    const module: unknown = await import(`./${name}.bench.ts`);
    if (!isBench(module)) throw new TypeError(`bench/${name}.bench.ts exports no run()`);
    results.push(...(await module.run()));
  } catch (error) {
    broken++;
    console.error(paint('red', `bench: ${name} could not be measured:`), error);
  }
}

const number = (value: number | null) =>
  value === null ? '–' : value >= 100 ? value.toFixed(0) : value.toPrecision(3);
console.log(
  table<BenchResult>(
    [
      { title: 'WHAT', value: (r) => r.name },
      { title: 'VALUE', value: (r) => number(r.value), align: 'right' },
      { title: 'BASELINE', value: (r) => number(r.baseline), align: 'right' },
      { title: 'UNIT', value: (r) => r.unit },
      { title: 'RATIO', value: (r) => number(r.ratio), align: 'right' },
      { title: 'BAR', value: (r) => r.bar },
      { title: '', value: (r) => (r.pass ? paint('green', 'pass') : paint('red', 'MISSED')) },
    ],
    results,
  ),
);
mkdirSync(resolve(root, 'build'), { recursive: true });
writeFileSync(resolve(root, 'build/bench.json'), `${JSON.stringify(results, null, 2)}\n`);
if (broken > 0 || results.some((r) => !r.pass)) process.exitCode = 1;
