import assert from 'node:assert/strict';
import { runInVm } from '../support/vm.ts';

const modules =
  'esp4 esp6 xfrm_interface xfrm_user veth tun cls_bpf sch_ingress nf_tables nft_chain_nat nft_masq nft_ct nf_nat nft_fib_inet bonding dummy';

/**
 * QEMU 7.2's emulation ends Node now and then with a signal that it did not earn: a run with one says nothing about us.
 * A second such run is not forgiven.
 */
const crash = /segfault at |traps: |ended with SIG(SEGV|BUS|ILL|TRAP)/;

/** Runs a test file inside a guest, where the kernel has ESP: `tests` of it have to pass. */
export async function passInGuest(file: string, tests: number, seconds: number): Promise<void> {
  const script = `for module in ${modules}; do modprobe $module 2>/dev/null; done
    ${process.execPath} --disable-warning=ExperimentalWarning --test --test-reporter=tap ${file}
    status=$?
    dmesg | grep -E 'segfault at |traps: ' >&2
    exit $status`;
  let result = await runInVm(script, { seconds });
  if (result.status !== 0 && crash.test(`${result.stdout}\n${result.stderr}`))
    result = await runInVm(script, { seconds });
  const said = `${result.stdout}\n${result.stderr}`;
  assert.equal(result.status, 0, said);
  assert.match(result.stdout, new RegExp(`^# pass ${tests}$`, 'm'), said);
}
