import { alice, remote } from '../test/datapath/cluster.ts';
import { type Entry, outOf, TestNode } from '../test/datapath/node.ts';
import { tcp } from '../test/support/packet.ts';
import { type BenchResult, median, ratioBar } from './result.ts';

const rounds = 9;
const packets = 200_000;
const set = 50;

/**
 * What one verdict costs with few rules and with many, by BPF_PROG_TEST_RUN. The packet matches none of them and is denied:
 * only then is every packet judged from the beginning; an admitted one would have its connection after the first.
 */
export async function run(): Promise<BenchResult[]> {
  const maxEntries = {
    ct: 4096,
    service_flows: 4096,
    fragments: 1024,
    denials: 1024,
    policy: 32_768,
    peers: 16_384,
    backends: 4096,
  };
  using few = new TestNode({ maxEntries });
  using many = new TestNode({ maxEntries });
  for (const [node, rules] of [
    [few, 10],
    [many, 10_000],
  ] as const) {
    node.ruleSet(set, entries(rules), { isolated: true });
    node.addPod(alice, { egressSet: set });
    // Denials are not to be reported while their cost is measured.
    node.configure({ denyIntervalNs: 3_600_000_000_000n });
  }
  const packet = outOf(alice, remote, 4, tcp({ source: 40_000, destination: 9 }));
  const times = { few: [] as number[], many: [] as number[] };
  for (let round = 0; round < rounds; round++) {
    times.few.push(few.measure(alice, packet, packets));
    times.many.push(many.measure(alice, packet, packets));
  }
  return [
    ratioBar('packet verdict with 10,000 rules against 10', 'ns', median(times.many), median(times.few), {
      atMost: 1.1,
    }),
  ];
}

/** Rules over many identities and ports, of the same shape whatever their number, so that the same probes are made. */
function entries(count: number): Entry[] {
  return Array.from({ length: count }, (_, i) => ({
    identity: i % 2 === 0 ? 0 : 1000 + i,
    protocol: 6,
    port: 1000 + 2 * i,
    portLength: 16,
    rule: i,
  }));
}
