import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { resolve } from 'node:path';
import { test } from 'node:test';
import { listLabs } from '../../src/lab/state.ts';

const program = resolve(import.meta.dirname, '../../bin/myelin');

test('a machine that lacks something is told what, in one line, by every way of starting', () => {
  const lab = `t${process.pid.toString(36)}-${randomBytes(3).toString('hex')}`;
  const commands = [
    ['demo', '--lab', lab],
    ['demo', '--keep', '--lab', lab],
    ['lab', 'up', '--lab', lab],
  ];
  const lacks: [RegExp, string, string[]][] = [
    [
      /^myelin: \/dev\/net\/tun cannot be opened: /m,
      'unshare',
      ['-m', 'sh', '-c', 'mount -t tmpfs t /dev/net; exec "$0" "$@"'],
    ],
    [
      /^myelin: missing privileges \(.*CAP_BPF.*\): run as root/m,
      'setpriv',
      ['--bounding-set', '-bpf,-sys_admin', '--inh-caps', '-all'],
    ],
  ];
  for (const [expected, file, args] of lacks)
    for (const command of commands) {
      const { status, stderr } = spawnSync(file, [...args, program, ...command], { encoding: 'utf8', timeout: 60_000 });
      assert.equal(status, 1, stderr);
      assert.match(stderr, expected);
      assert.equal(stderr.trim().split('\n').length, 1, stderr);
      assert.ok(!listLabs().includes(lab));
    }
});
