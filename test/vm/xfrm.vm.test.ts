import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runInVm } from '../support/vm.ts';

test('the kernel’s ESP takes the associations that kernel/xfrm installs, both families, UDP-encapsulated, with ESN', async () => {
  const result = await runInVm(`${process.execPath} --disable-warning=ExperimentalWarning test/vm/xfrm-pair.ts`, {
    seconds: 120,
  });
  assert.equal(result.status, 0, `${result.stdout}\n${result.stderr}`);
  const { capture, states } = JSON.parse(result.stdout);
  assert.match(capture, /3 packets transmitted, 3 received/);
  assert.match(capture, /2 packets transmitted, 2 received/);
  assert.equal(capture.match(/UDP-encap: ESP\(spi=0x0000100/g)?.length, 3, capture);
  for (const { before, after } of states) {
    assert.equal(before.length, 2);
    assert.equal(after, 1);
    for (const state of before) {
      assert.equal(state.packets, 5, 'three pings of IPv4 and two of IPv6');
      assert.equal(state.sequence, 5);
      assert.equal(state.interfaceId, 7);
    }
  }
});
