import { parseIp } from '../src/model/address.ts';
import { TestLab } from '../test/support/lab.ts';
import { type BenchResult, median, ratioBar } from './result.ts';
import { podNetns } from './support/lab-pods.ts';
import { type Ends, tcpRoundTrip, tcpThroughput } from './support/load.ts';
import { openPlainPair, type Site } from './support/sites.ts';
import { openStrongswan } from './support/strongswan.ts';
import { openWireguard } from './support/wireguard.ts';

const rounds = 3;
const seconds = 3;

/**
 * Pod to pod across two nodes through the engine, against wireguard-go and strongSwan's userspace ESP between the same two
 * node namespaces over the same underlay of MTU 1500, with plain pods behind them. Rounds alternate.
 */
export async function run(): Promise<BenchResult[]> {
  const lab = await TestLab.up({ nodes: 2, dns: false });
  try {
    const [a, b] = lab.lab.plan.nodes;
    if (a === undefined || b === undefined) throw new Error('the lab has two nodes');
    const client = await lab.pod('client').on(a.name).create();
    const server = await lab.pod('server').on(b.name).create();
    const myelin: Ends = {
      client: await podNetns(lab.lab, client),
      server: await podNetns(lab.lab, server),
      address: parseIp(server.addresses[0]),
    };
    const sites: [Site, Site] = [
      { netns: a.netns, underlay: a.addresses[0], device: 'eth0' },
      { netns: b.netns, underlay: b.addresses[0], device: 'eth0' },
    ];
    const plain = await openPlainPair('bt', sites, { mtu: 1404 });
    try {
      const bare: Ends = { client: plain.client.netns, server: plain.server.netns, address: plain.server.address };
      const wireguard = await openWireguard('bt', sites);
      const measured = { myelin: [] as number[], wireguard: [] as number[], plain: [] as number[] };
      const trips = { myelin: [] as number[], wireguard: [] as number[] };
      const many = { myelin: [] as number[], wireguard: [] as number[] };
      try {
        for (let round = 0; round < rounds; round++) {
          measured.myelin.push(await tcpThroughput(myelin, { seconds, streams: 1 }));
          await plain.routeBy(wireguard.devices);
          measured.wireguard.push(await tcpThroughput(bare, { seconds, streams: 1 }));
          many.wireguard.push(await tcpThroughput(bare, { seconds, streams: 8 }));
          trips.wireguard.push(await tcpRoundTrip(bare, { seconds: 2 }));
          many.myelin.push(await tcpThroughput(myelin, { seconds, streams: 8 }));
          trips.myelin.push(await tcpRoundTrip(myelin, { seconds: 2 }));
          await plain.routeBy();
          measured.plain.push(await tcpThroughput(bare, { seconds, streams: 1 }));
        }
      } finally {
        await wireguard.close();
      }
      const strongswan = await openStrongswan(sites, ['10.250.1.0/24', '10.250.2.0/24']);
      const libipsec: number[] = [];
      try {
        for (let round = 0; round < 2; round++) libipsec.push(await tcpThroughput(bare, { seconds, streams: 1 }));
      } finally {
        await strongswan.close();
      }
      const speed = median(measured.myelin);
      return [
        ratioBar('pod to pod across nodes, TCP, against wireguard-go', 'Mbit/s', speed, median(measured.wireguard), {
          atLeast: 1.3,
        }),
        ratioBar('the same with eight streams', 'Mbit/s', median(many.myelin), median(many.wireguard), {
          atLeast: 1.3,
        }),
        ratioBar('the same, request/response', 'µs', median(trips.myelin), median(trips.wireguard), { atMost: 1 }),
        ratioBar('the same, against strongSwan with kernel-libipsec', 'Mbit/s', speed, median(libipsec), {
          atLeast: 3,
        }),
        ratioBar('the same, against the plain unencrypted path', 'Mbit/s', speed, median(measured.plain), {
          atLeast: 0,
        }),
      ];
    } finally {
      await plain.close();
    }
  } finally {
    await lab.down();
  }
}
