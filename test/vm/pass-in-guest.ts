import assert from 'node:assert/strict';
import { runInVm } from '../support/vm.ts';

const modules =
  'esp4 esp6 xfrm_interface xfrm_user veth tun cls_bpf sch_ingress nf_tables nft_chain_nat nft_masq nft_ct nf_nat nft_fib_inet bonding dummy';

/** Runs a test file inside a guest, where the kernel has ESP: `tests` of it have to pass. */
export async function passInGuest(file: string, tests: number, seconds: number): Promise<void> {
  const script = `for module in ${modules}; do modprobe $module 2>/dev/null; done
    ${process.execPath} --disable-warning=ExperimentalWarning --test --test-reporter=tap ${file}
    status=$?
    dmesg | grep -E 'segfault at |traps: ' >&2
    exit $status`;
  const result = await runInVm(script, { seconds });
  // Where a process ended with a signal, that first: of a long message often only the beginning is kept.
  const said = `${result.stderr}\n${result.stdout}`;
  assert.equal(result.status, 0, said);
  assert.match(result.stdout, new RegExp(`^# pass ${tests}$`, 'm'), said);
}
