import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { down } from '../../src/lab/down.ts';
import { defaultLab } from '../../src/lab/plan.ts';
import { isRunning } from '../../src/lab/process.ts';
import { listLabs, readState, writeState } from '../../src/lab/state.ts';
import { myelin } from '../support/cli.ts';
import { begin, lab, newName, statusSchema, succeeds } from './command.ts';
import { leftovers } from './leftovers.ts';

describe('a lab that nobody took down', () => {
  const name = newName();
  after(() => down(name));

  test('Ctrl-C in the middle of up takes everything back', async () => {
    // A pod that never is ready keeps it on its way, however fast this machine is.
    const file = join(tmpdir(), `${name}.json`);
    const container = {
      name: 'c',
      image: 'busybox',
      command: ['sleep', '600'],
      readinessProbe: { exec: { command: ['false'] } },
    };
    const never = { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'never' }, spec: { containers: [container] } };
    writeFileSync(file, JSON.stringify(never));
    const { child, ran } = begin(['up', '--name', name, '--nodes', '2', '-f', file]);
    while (!(readState(name)?.processes.some((process) => process.name.startsWith('agent/')) ?? false)) {
      assert.equal(child.exitCode, null, 'up ended by itself');
      await sleep(20);
    }
    assert.match((await lab('up', '--name', name)).stderr, /is bringing up the lab/);
    child.kill('SIGINT');
    const { code, stderr } = await ran;
    assert.equal(code, 130);
    assert.match(stderr, /interrupted/);
    assert.deepEqual(leftovers(name), []);
    rmSync(file);
  });

  test('what a killed up left, down removes; and the next up starts over it', async () => {
    for (const finish of ['down', 'up'] as const) {
      const { child, ran } = begin(['up', '--name', name, '--nodes', '1']);
      while ((readState(name)?.processes.length ?? 0) < 4) {
        assert.equal(child.exitCode, null, 'up ended by itself');
        await sleep(20);
      }
      child.kill('SIGKILL');
      await ran;
      assert.notDeepEqual(leftovers(name), []);
      if (finish === 'up') {
        await succeeds('up', '--name', name, '--nodes', '1');
        const { stdout } = await lab('status', '--name', name, '-o', 'json');
        assert.ok(statusSchema.parse(JSON.parse(stdout)).processes.every(({ running }) => running));
      }
      await succeeds('down', '--name', name);
      assert.deepEqual(leftovers(name), []);
    }
  });

  test('down ends no process that only got a recorded number', async () => {
    const stranger = spawn('sleep', ['60'], { stdio: 'ignore' });
    await once(stranger, 'spawn');
    try {
      const { pid = 0 } = stranger;
      const processes = [{ name: 'api', pid, startTime: '1', log: '/dev/null' }];
      const createdAt = new Date().toISOString();
      writeState({
        version: 1,
        name,
        createdAt,
        complete: false,
        starter: { pid: 1, startTime: '0' },
        nodes: 1,
        mtu: 1500,
        agents: {},
        mountedBpffs: false,
        processes,
      });
      await down(name);
      assert.equal(existsSync(`/proc/${pid}`), true);
      assert.equal(stranger.exitCode, null);
      assert.equal(isRunning({ pid, startTime: '1' }), false);
    } finally {
      stranger.kill('SIGKILL');
    }
  });
});

test('two labs live side by side: one goes, and the other does not notice', async () => {
  const [one, two] = [newName(), newName()];
  try {
    await Promise.all([one, two].map((name) => succeeds('up', '--name', name, '--nodes', '1')));
    // Unless somebody has a lab of the default name up, which is meant then.
    if (!listLabs().includes(defaultLab)) {
      const { code, stderr } = await myelin('status');
      assert.equal(code, 1, 'two labs’ agents are not one cluster');
      assert.match(stderr, /there are several labs \(.*\): say which with --lab/);
    }
    await succeeds('down', '--name', one);
    assert.deepEqual(leftovers(one), []);
    const { code, stdout } = await lab('status', '--name', two, '-o', 'json');
    assert.equal(code, 0, stdout);
    assert.ok(statusSchema.parse(JSON.parse(stdout)).processes.every(({ running }) => running));
  } finally {
    await Promise.all([down(one), down(two)]);
  }
  assert.deepEqual(leftovers(two), []);
});
