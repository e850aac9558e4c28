import assert from 'node:assert/strict';
import { test } from 'node:test';
import { verifierSummary } from '../../src/kernel/bpf/log.ts';
import { cgroupMountOf } from '../../src/kernel/cgroup.ts';
import { errnoError, errnoName } from '../../src/kernel/error.ts';
import { oldKernel, privilegesMissingFrom } from '../../src/kernel/probe.ts';

test('cgroup v2 is found wherever it is mounted', () => {
  const v1 = '30 23 0:26 / /sys/fs/cgroup/cpu rw,nosuid shared:9 - cgroup cgroup rw,cpu\n';
  assert.equal(cgroupMountOf(`${v1}31 23 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n`), '/sys/fs/cgroup');
  assert.equal(
    cgroupMountOf(`${v1}32 23 0:28 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 none rw\n`),
    '/sys/fs/cgroup/unified',
  );
  assert.equal(cgroupMountOf('33 23 0:29 / /mnt/a\\040b rw - cgroup2 none rw\n'), '/mnt/a b');
  assert.equal(cgroupMountOf(v1), undefined);
});

test('kernels are compared by number', () => {
  assert.equal(oldKernel('6.1.0-38-amd64'), '');
  assert.equal(oldKernel('6.18.44'), '');
  assert.equal(oldKernel('10.0.0'), '');
  assert.match(oldKernel('6.0.19'), /6\.1 is the oldest/);
  assert.match(oldKernel('5.15.0-91-generic'), /too old/);
});

test('missing privileges are named', () => {
  assert.deepEqual(privilegesMissingFrom('CapEff:\t000001ffffffffff\n'), []);
  assert.deepEqual(privilegesMissingFrom('CapEff:\t0000000000000000\n'), ['CAP_NET_ADMIN', 'CAP_SYS_ADMIN', 'CAP_BPF']);
  assert.deepEqual(privilegesMissingFrom('CapEff:\t0000008000201000\n'), []);
  assert.deepEqual(privilegesMissingFrom('CapEff:\t0000000000201000\n'), ['CAP_BPF']);
});

test('errors name errno, operation and object', () => {
  const error = errnoError(28, 'write an entry', 'map policy', { map: 'policy' });
  assert.equal(error.code, 'Errno');
  assert.equal(error.errno, 'ENOSPC');
  assert.equal(error.message, 'cannot write an entry: map policy: there is no room left (ENOSPC)');
  assert.equal(error.data.map, 'policy');
  assert.equal(errnoName(524), 'ENOTSUPP');
  assert.equal(errnoName(4007), 'LIBBPF_4007');
});

test('of a verifier’s log, the last lines that say something are taken', () => {
  const log = [
    'func#0 @0',
    '0: R1=ctx(off=0,imm=0) R10=fp0',
    '; return *value;',
    '7: (79) r0 = *(u64 *)(r0 +0)',
    "R0 invalid mem access 'scalar'",
    'verification time 61 usec',
    'stack depth 8',
    'processed 8 insns (limit 1000000) max_states_per_insn 0 total_states 0',
    '',
  ].join('\n');
  assert.equal(verifierSummary(log, 2), "7: (79) r0 = *(u64 *)(r0 +0); R0 invalid mem access 'scalar'");
});
