import { parseIp } from '../src/model/address.ts';
import { TestLab } from '../test/support/lab.ts';
import { type BenchResult, median, ratioBar } from './result.ts';
import { podNetns } from './support/lab-pods.ts';
import { tcpRoundTrip, tcpThroughput } from './support/load.ts';
import { openPlainPair } from './support/sites.ts';

const rounds = 3;

/**
 * Two pods of one node, through from_pod and to_pod with policy and connection tracking, against two namespaces of the
 * same node that are joined by plain routing and nothing else. Rounds alternate, because the machine's speed drifts.
 */
export async function run(): Promise<BenchResult[]> {
  const lab = await TestLab.up({ nodes: 1, dns: false });
  try {
    const [node] = lab.lab.plan.nodes;
    if (node === undefined) throw new Error('a lab has a node');
    const client = await lab.pod('client').on(node.name).create();
    const server = await lab.pod('server').on(node.name).create();
    const site = { netns: node.netns, underlay: node.addresses[0], device: 'eth0' };
    const pods = {
      client: await podNetns(lab.lab, client),
      server: await podNetns(lab.lab, server),
      address: parseIp(server.addresses[0]),
    };
    const plain = await openPlainPair('bl', [site, site], { mtu: 1404 });
    try {
      const bare = { client: plain.client.netns, server: plain.server.netns, address: plain.server.address };
      const speed = { pods: [] as number[], bare: [] as number[] };
      const trip = { pods: [] as number[], bare: [] as number[] };
      for (let round = 0; round < rounds; round++) {
        speed.pods.push(await tcpThroughput(pods, { seconds: 3, streams: 1 }));
        speed.bare.push(await tcpThroughput(bare, { seconds: 3, streams: 1 }));
        trip.pods.push(await tcpRoundTrip(pods, { seconds: 2 }));
        trip.bare.push(await tcpRoundTrip(bare, { seconds: 2 }));
      }
      return [
        ratioBar(
          'pod to pod on one node, TCP, against plain routing',
          'Mbit/s',
          median(speed.pods),
          median(speed.bare),
          { atLeast: 0.85 },
        ),
        ratioBar('the same, request/response', 'µs', median(trip.pods), median(trip.bare), { atMost: 1.2 }),
      ];
    } finally {
      await plain.close();
    }
  } finally {
    await lab.down();
  }
}
