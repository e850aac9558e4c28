import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type RunOptions, run } from '../../src/kernel/command.ts';
import { KernelError } from '../../src/kernel/error.ts';

async function failure(command: string, args: readonly string[], options?: RunOptions): Promise<KernelError> {
  const error: unknown = await run(command, args, options).then(
    () => assert.fail(`${command} did not fail`),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof KernelError, String(error));
  return error;
}

test('a command gets its input and environment and gives its output', async () => {
  const result = await run('sh', ['-c', 'cat; echo $WORD; echo aside >&2'], {
    input: 'given\n',
    env: { WORD: 'said' },
  });
  assert.deepEqual(result, { stdout: 'given\nsaid\n', stderr: 'aside\n' });
});

test('input that a command does not read is no failure of its own', async () => {
  await run('true', [], { input: 'x'.repeat(1 << 20) });
});

test('a command that fails says its status and what it printed', async () => {
  const error = await failure('sh', ['-c', 'echo "RTNETLINK answers: File exists" >&2; exit 3']);
  assert.equal(error.code, 'Command');
  assert.equal(error.errno, 'EEXIST');
  assert.equal(error.data.status, 3);
  assert.match(error.message, /^sh -c .*File exists/);
});

test('a missing program is named with its package', async () => {
  const error = await failure('myelin-no-such-program', []);
  assert.equal(error.code, 'Missing');
  const nft = await failure('nft', [], { env: { PATH: '/nonexistent' } });
  assert.equal(nft.message, 'the program nft is not installed: install the package nftables');
});

test('a command ends with its time or its signal', async () => {
  const error = await failure('sleep', ['60'], { timeout: 20 });
  assert.match(error.message, /signal SIGTERM/);
  const controller = new AbortController();
  const aborted = run('sleep', ['60'], { signal: controller.signal });
  controller.abort();
  await assert.rejects(aborted, { name: 'AbortError' });
});
