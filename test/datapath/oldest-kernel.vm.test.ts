import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runInVm } from '../support/vm.ts';

test('the oldest supported kernel takes the programs, and they do the same there', async () => {
  const result = await runInVm(
    `for module in tun veth cls_bpf sch_ingress nf_tables nft_chain_nat nft_masq; do modprobe $module; done
     uname -r
     export MYELIN_STREAM_MIB=1 MYELIN_DNS_RUNS=200
     ${process.execPath} --disable-warning=ExperimentalWarning --test --test-concurrency=1 --test-reporter=tap \\
       test/datapath/links.lab.test.ts test/datapath/verifier-budget.program.test.ts \\
       test/datapath/names.program.test.ts test/datapath/http-sockets.lab.test.ts \\
       test/datapath/proxied.program.test.ts test/datapath/proxy.lab.test.ts \\
       test/datapath/dns-stream.program.test.ts test/datapath/http-options.lab.test.ts`,
    { seconds: 900 },
  );
  assert.match(result.stdout, /^6\.1\./);
  assert.equal(result.status, 0, `${result.stdout}\n${result.stderr}`);
  assert.match(result.stdout, /^# pass 1\d\d$/m);
});
