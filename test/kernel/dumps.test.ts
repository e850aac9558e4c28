import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';

test('a process that forbids dumps of itself is not dumpable from then on', () => {
  const dumps = new URL('../../src/kernel/dumps.ts', import.meta.url).href;
  const program = `import { forbidDumps, isDumpable } from '${dumps}';
    const before = isDumpable(); forbidDumps(); console.log(before, isDumpable());`;
  const flags = ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', program];
  assert.equal(execFileSync(process.execPath, flags, { encoding: 'utf8' }), 'true false\n');
});
