import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const unit = fileURLToPath(new URL('../../build/native-asan/unit', import.meta.url));

/** The engine's C unit tests, under AddressSanitizer and UndefinedBehaviorSanitizer; a run prints the seed of its random inputs. */
test('the engine’s parts', async (t) => {
  const { stdout, stderr, status } = spawnSync(unit, { encoding: 'utf8', timeout: 120_000 });
  const lines = stdout.split('\n');
  for (const name of lines.filter((line) => line.startsWith('ok ')).map((line) => line.slice(3)))
    await t.test(name, () => undefined);
  const failure = lines.find((line) => line.startsWith('not ok '));
  assert.equal(failure, undefined, `${lines[0]}\n${stderr}`);
  assert.equal(status, 0, `${lines[0]} ${lines.at(-2)}\n${stderr}`);
  assert.ok(lines.length > 50, 'the program ran its tests');
});
