import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runInVm } from '../support/vm.ts';

test('on the oldest supported kernel an engine talks to an engine, and to the kernel’s own ESP, both ways', async () => {
  const script =
    'for m in esp4 esp6 veth tun; do modprobe $m; done; ' +
    `${process.execPath} --disable-warning=ExperimentalWarning test/vm/engine-guest.ts`;
  const result = await runInVm(script, { seconds: 600 });
  assert.equal(result.status, 0, `${result.stdout}\n${result.stderr}\n${result.console.slice(-2000)}`);
  const seen = JSON.parse(result.stdout);
  assert.deepEqual(seen.engines, { pings: [3, 3], bulk: [true] });
  assert.deepEqual(seen.kernel, { pings: [3, 3, 3, 3], bulk: [true, true] });
  assert.equal(seen.esn, true);
  // Linux 6.1 has no USO for TUN devices: the engine has to do without, and say so.
  assert.equal(seen.engine.udpOffload, false);
  assert.ok(seen.details.tun_super_packets > 0 && seen.details.tun_segments_coalesced > 0, 'TSO works nevertheless');
  const { TUN_NOT_UNICAST: _, ...drops } = seen.drops;
  assert.deepEqual(drops, {});
});
