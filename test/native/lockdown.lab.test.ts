import assert from 'node:assert/strict';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { run } from '../../src/kernel/command.ts';
import { EngineLab } from '../support/engine-lab.ts';

const prober = fileURLToPath(new URL('../support/engine-probe.ts', import.meta.url));

describe('a running engine', () => {
  let lab: EngineLab;
  let pid: number;
  before(async () => {
    lab = await EngineLab.open();
    await lab.connect();
    pid = lab.nodes[0].enginePid;
  });
  after(() => lab.close());

  const field = (name: string) =>
    new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];

  test('has no privileges, in any of its threads', () => {
    for (const task of readdirSync(`/proc/${pid}/task`)) {
      const status = readFileSync(`/proc/${pid}/task/${task}/status`, 'utf8');
      for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'])
        assert.match(status, new RegExp(`^${set}:\\s*0000000000000000$`, 'm'), `${set} of thread ${task}`);
      assert.match(status, /^Uid:\t65534\t65534\t65534\t65534$/m);
      assert.match(status, /^Gid:\t65534\t65534\t65534\t65534$/m);
      assert.match(status, /^Groups:\s*$/m);
      assert.match(status, /^NoNewPrivs:\s*1$/m);
      assert.match(status, /^Seccomp:\s*2$/m);
    }
  });

  test('has no file system: its root is a deleted directory', () => {
    assert.match(readlinkSync(`/proc/${pid}/root`), /myelin-engine-\w+ \(deleted\)$/);
    assert.match(readlinkSync(`/proc/${pid}/cwd`), /\(deleted\)$/);
    assert.deepEqual(readdirSync(`/proc/${pid}/root`), []);
  });

  test('dumps no core, and keeps its keys in RAM', () => {
    assert.match(readFileSync(`/proc/${pid}/limits`, 'utf8'), /^Max core file size\s+0\s+0\s/m);
    const smaps = readFileSync(`/proc/${pid}/smaps`, 'utf8');
    // Don't-dump and locked together are the key memory's mark.
    assert.match(smaps, /^VmFlags:.* lo .*dd/m);
    assert.equal(lab.nodes[0].driver.engine?.keysLocked, true);
    assert.ok(Number.parseInt(field('VmLck') ?? '0', 10) > 0);
  });

  test('holds three descriptors of the agent’s, its own two, and the connection', () => {
    const targets = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
    const kinds = targets.map((target) => target.replace(/\d+/g, 'N')).sort();
    const log = `${lab.nodes[0].socket}.log`.replace(/\d+/g, 'N');
    assert.deepEqual(
      kinds,
      [
        '/dev/net/tun',
        '/dev/null',
        '/dev/null',
        log,
        'anon_inode:[eventfd]',
        'anon_inode:[eventpoll]',
        ...Array(3).fill('socket:[N]'),
      ].sort(),
    );
  });

  test('has nothing secret in its arguments or environment', () => {
    assert.equal(readFileSync(`/proc/${pid}/environ`, 'utf8'), '');
    assert.match(readFileSync(`/proc/${pid}/cmdline`, 'utf8'), /^\/\S+\/myelin-engine\0$/);
  });
});

test('the usual calls of an exploit kill it', async () => {
  const calls = [
    'execve',
    'open',
    'socket',
    'connect',
    'ptrace',
    'fork',
    'kill',
    'ioctl',
    'mmap-exec',
    'setuid',
    'io_uring',
  ];
  const { stdout } = await run('unshare', ['--net', process.execPath, prober, ...calls, 'getpid']);
  const endings: Record<string, string> = JSON.parse(stdout);
  for (const call of calls) assert.equal(endings[call], 'SIGSYS', call);
  assert.match(endings.getpid ?? '', /^survived getpid: \d+$/, 'a call on the list goes through, so the probe works');
});
