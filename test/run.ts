/**
 * Runs the tests lane by lane and ends with one line: `N passed, N failed` (`, N skipped`).
 *
 *   node test/run.ts [--lane pure|program|lab|vm] [--file PATTERN]
 */
import { globSync } from 'node:fs';
import { resolve } from 'node:path';
import { run } from 'node:test';
import { parseArgs, styleText } from 'node:util';

const lanes = ['pure', 'program', 'lab', 'vm'] as const;
type Lane = (typeof lanes)[number];

const { values } = parseArgs({ options: { lane: { type: 'string' }, file: { type: 'string' } } });
const root = resolve(import.meta.dirname, '..');
const paint = (style: Parameters<typeof styleText>[0], text: string) =>
  styleText(style, text, { stream: process.stdout });

function laneOf(file: string): Lane {
  const match = /\.(program|lab|vm)\.test\.ts$/.exec(file);
  return lanes.find((lane) => lane === match?.[1]) ?? 'pure';
}

const total = { passed: 0, failed: 0, skipped: 0 };
const failures: string[] = [];

async function runLane(lane: Lane, files: string[]): Promise<void> {
  console.log(paint('bold', `\n${lane} lane: ${files.length} files`));
  // Lab and VM tests bring up whole clusters: two at once on two cores only make each other slow.
  const light = lane === 'pure' || lane === 'program';
  // Emulated machines are ten times slower than real ones, and more where this one is slow.
  const minutes = light ? 4 : lane === 'lab' ? 10 : 25;
  const stream = run({ files, concurrency: light ? 2 : 1, timeout: minutes * 60_000 });
  stream.on('test:pass', (event) => {
    if (event.details.type === 'suite') return;
    if (event.skip !== undefined && event.skip !== false) {
      total.skipped++;
      console.log(paint('yellow', `  skipped ${event.name}: ${event.skip === true ? '' : event.skip}`));
    } else total.passed++;
  });
  stream.on('test:fail', (event) => {
    if (event.details.type === 'suite') return;
    total.failed++;
    const cause: unknown = event.details.error.cause ?? event.details.error;
    const text = cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
    failures.push(
      `${event.file?.replace(`${root}/`, '')}:${event.line ?? 0} ${event.name}\n${text.replaceAll(/^/gm, '    ')}`,
    );
    // In the line of the test too: of a long log, often only such lines are kept.
    const inShort = (cause instanceof Error ? cause.message : text).replaceAll(/\s+/g, ' ').slice(0, 600);
    console.log(paint('red', `  FAILED ${event.file?.replace(`${root}/`, '')}: ${event.name}: ${inShort}`));
  });
  stream.on('test:summary', ({ file, duration_ms: ms, counts, success }) => {
    if (file === undefined) return;
    // The file that ran them: an event names the file that wrote them, which may be a suite that several files run.
    const mark = success ? paint('green', '✓') : paint('red', '✗');
    console.log(
      `  ${mark} ${file.replace(`${root}/`, '')} ${paint('dim', `${counts.passed} passed, ${(ms / 1000).toFixed(1)} s`)}`,
    );
  });
  stream.on('test:stderr', (event) => process.stderr.write(event.message));
  await new Promise<void>((done, fail) => {
    stream.on('end', done);
    stream.on('error', fail);
    stream.resume();
  });
}

const files = globSync('test/**/*.test.ts', { cwd: root })
  .filter((file) => values.file === undefined || file.includes(values.file))
  .map((file) => resolve(root, file))
  .sort();
for (const lane of lanes) {
  if (values.lane !== undefined && values.lane !== lane) continue;
  const chosen = files.filter((file) => laneOf(file) === lane);
  if (chosen.length > 0) await runLane(lane, chosen);
}

if (failures.length > 0) console.log(paint('red', '\nFailures\n'), failures.join('\n\n'));
if (total.skipped > 0 && process.env.CI !== undefined) {
  console.log(paint('red', `\n${total.skipped} tests were skipped: in CI every lane runs`));
  process.exitCode = 1;
}
if (total.failed > 0 || total.passed === 0) process.exitCode = 1;
console.log(`\n${total.passed} passed, ${total.failed} failed${total.skipped > 0 ? `, ${total.skipped} skipped` : ''}`);
