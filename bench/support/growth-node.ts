import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Datapath } from '../../src/datapath/datapath.ts';
import type { GrowthStep } from '../../src/datapath/growth/growth.ts';
import { removePinDirectory } from '../../src/kernel/bpffs.ts';
import { findLink, ipBatch } from '../../src/kernel/ip.ts';
import { ipFromBytes, macFromBytes } from '../../src/model/address.ts';
import { compile } from '../../src/policy/compile.ts';
import { objectDir } from '../../test/datapath/maps.ts';
import { clusterWith, policy } from '../../test/support/cluster.ts';

/*
 * A node in a namespace of its own (map-growth.bench.ts starts it): growth-node.ts PODS BLOCKS PORTS. A policy about every
 * pod, of so many prefixes and ports, fills the map of policy; then the map grows. Prints what that took, as JSON.
 */
const [pods = 0, blocks = 0, ports = 0] = process.argv.slice(2).map(Number);
const pinDir = `/sys/fs/bpf/myelin-bench-growth-${process.pid}`;
const entries = blocks * ports;

const at: Partial<Record<GrowthStep, number>> = {};
// A resolution below a millisecond is the timer's own.
const delay = monitorEventLoopDelay({ resolution: 1 });
const done = Promise.withResolvers<void>();
const datapath = Datapath.open(
  { objectDir, pinDir, maxEntries: { ct: 4096, service_flows: 1024, policy: Math.ceil(entries * 1.1) } },
  {
    onGrowth: (step) => {
      at[step] ??= performance.now();
      if (step !== 'done') return;
      at.done = performance.now();
      done.resolve();
    },
  },
);
try {
  const names = Array.from({ length: pods }, (_, i) => `pod${i}`);
  await ipBatch(names.map((name) => `link add ${name} type veth peer name ${name}-in`));
  for (const [i, name] of names.entries()) {
    const link = await findLink(name);
    const mac = macFromBytes(Uint8Array.of(2, 0, 0, 0, 0, i));
    const addresses = [ipFromBytes(Uint8Array.of(10, 244, 1, i + 2))];
    datapath.setEndpoint({ uid: name, ifindex: link?.ifindex ?? 0, mac, hostMac: mac, addresses });
  }
  const to = Array.from({ length: blocks }, (_, i) => ({ ipBlock: { cidr: `172.16.${i >> 6}.${4 * (i & 63)}/32` } }));
  const spec = {
    podSelector: {},
    policyTypes: ['Egress'],
    egress: [{ to, ports: Array.from({ length: ports }, (_, i) => ({ port: 1000 + 2 * i })) }],
  };
  const image = compile(clusterWith([policy('far', spec)]), 'node-1', datapath.policy);
  await datapath.applyPolicy(image);
  const begun = performance.now();
  delay.enable();
  await done.promise;
  // The turn in which it was done is over with the next.
  await new Promise((resolve) => setTimeout(resolve, 5));
  delay.disable();
  const { used = 0, capacity = 0 } = datapath.usage().policy ?? {};
  const since = (step: GrowthStep) => (at[step] ?? Number.NaN) - begun;
  console.log(
    JSON.stringify({
      used,
      capacity,
      loadMs: since('made'),
      copyMs: since('copied') - since('made'),
      changeMs: since('replaced') - since('copied'),
      wholeMs: since('done'),
      heldUpMs: delay.max / 1e6,
    }),
  );
} finally {
  await datapath.close();
  removePinDirectory(pinDir);
}
