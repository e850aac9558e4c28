import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const path = (relative: string) => fileURLToPath(new URL(`../../${relative}`, import.meta.url));
const targets = {
  udp: 'datagrams from the underlay',
  tun: 'packets and offload requests from the TUN device',
  control: 'the control socket',
} as const;
/** For all targets together; `make fuzz SECONDS=600` for a long run. */
const seconds = Number(process.env.MYELIN_FUZZ_SECONDS ?? 60) / Object.keys(targets).length;

/**
 * Fuzzes one of the engine's inputs under sanitizers, from the corpus on. New inputs go to a directory of their own, so
 * that a test run leaves the tree as it was; a crash's input is printed in base64, to be put into native/fuzz/corpus.
 */
async function fuzz(target: string, t: TestContext): Promise<void> {
  const found = mkdtempSync(`${tmpdir()}/myelin-fuzz-${target}-`);
  try {
    const child = spawn(
      path(`build/native-asan/fuzz_${target}`),
      [
        `-max_total_time=${Math.ceil(seconds)}`,
        '-max_len=16384',
        '-rss_limit_mb=1024',
        '-timeout=10',
        '-print_final_stats=1',
        `-artifact_prefix=${found}/crash-`,
        found,
        path(`native/fuzz/corpus/${target}`),
      ],
      { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, ASAN_OPTIONS: 'quarantine_size_mb=16' } },
    );
    let output = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      output = (output + text).slice(-20_000);
    });
    const status = await new Promise<number | null>((resolve) => child.once('close', resolve));
    assert.equal(status, 0, output);
    const runs = Number(/stat::number_of_executed_units:\s*(\d+)/.exec(output)?.[1] ?? 0);
    t.diagnostic(`${runs} inputs`);
    assert.ok(runs > 1000, `${runs} inputs were tried\n${output}`);
  } finally {
    rmSync(found, { recursive: true, force: true });
  }
}

for (const [target, name] of Object.entries(targets)) test(name, (t) => fuzz(target, t));
