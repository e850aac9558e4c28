import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { run } from '../../src/kernel/command.ts';

const agent = resolve(import.meta.dirname, '../../src/agent/agent.ts');
const heavy = ['internal/deps/undici/undici', 'internal/deps/amaro/dist/index'];

/** Which of Node's own large modules a process has after it loaded the agent. */
async function loaded(cache: string): Promise<string[]> {
  const script = `import(${JSON.stringify(agent)}).then(() => console.log(JSON.stringify(process.moduleLoadList)))`;
  const flags = ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', script];
  const { stdout } = await run('env', [`NODE_COMPILE_CACHE=${cache}`, process.execPath, ...flags]);
  return heavy.filter((name) => stdout.includes(`"NativeModule ${name}"`));
}

test('an agent whose code is compiled already loads neither the stripper of types nor a second HTTP client', async (t) => {
  const cache = await mkdtemp(join(tmpdir(), 'myelin-compile-'));
  t.after(() => rm(cache, { recursive: true }));
  assert.deepEqual(await loaded(cache), ['internal/deps/amaro/dist/index']);
  assert.deepEqual(await loaded(cache), []);
});
