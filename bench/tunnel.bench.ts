import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { run as runCommand } from '../src/kernel/command.ts';
import { parseIp } from '../src/model/address.ts';
import { TestLab } from '../test/support/lab.ts';
import { type BenchResult, median, ratioBar } from './result.ts';
import { podNetns } from './support/lab-pods.ts';
import { type Ends, tcpRoundTrip, tcpThroughput, udpRate } from './support/load.ts';
import { printProfile, profiled } from './support/profile.ts';
import { openPlainPair, type Site } from './support/sites.ts';
import { openStrongswan } from './support/strongswan.ts';
import { openWireguard } from './support/wireguard.ts';

const rounds = 3;
const seconds = 3;
/** Payload of a packet of 1,400 bytes. */
const datagram = 1400 - 28;

/** What is measured over each path. */
const loads = {
  one: (ends: Ends) => tcpThroughput(ends, { seconds, streams: 1 }),
  eight: (ends: Ends) => tcpThroughput(ends, { seconds, streams: 8 }),
  udp: (ends: Ends) => udpRate(ends, { length: datagram }),
  trip: (ends: Ends) => tcpRoundTrip(ends, { seconds: 2 }),
} as const;
type Load = keyof typeof loads;

/** Through the engine, through wireguard-go, and in clear, between the same two node namespaces. */
type Path = 'myelin' | 'wireguard' | 'plain';

class Measured {
  readonly #samples = new Map<string, number[]>();

  add(load: Load, path: Path, sample: number): void {
    const key = `${load} ${path}`;
    this.#samples.set(key, [...(this.#samples.get(key) ?? []), sample]);
  }

  of(load: Load, path: Path): number {
    return median(this.#samples.get(`${load} ${path}`) ?? []);
  }
}

interface Options {
  /** Of the underlay. */
  readonly mtu: number;
  readonly loads: readonly Load[];
  /** Once more at the end, for strongSwan's sake and to see where the cycles go. */
  readonly more: boolean;
}

/** Pod to pod across two nodes of a lab, and plain pods behind the same two nodes. Rounds alternate between the paths. */
async function measure({ mtu, loads: chosen, more }: Options): Promise<{ measured: Measured; libipsec: number }> {
  const lab = await TestLab.up({ nodes: 2, dns: false, mtu });
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
    const plain = await openPlainPair('bt', sites, { mtu: mtu - 96 });
    try {
      const bare: Ends = { client: plain.client.netns, server: plain.server.netns, address: plain.server.address };
      const measured = new Measured();
      const wireguard = await openWireguard('bt', sites, mtu - 80);
      try {
        for (let round = 0; round < rounds; round++)
          for (const load of chosen) {
            measured.add(load, 'myelin', await loads[load](myelin));
            await plain.routeBy(wireguard.devices);
            measured.add(load, 'wireguard', await loads[load](bare));
            await plain.routeBy();
            measured.add(load, 'plain', await loads[load](bare));
          }
      } finally {
        await wireguard.close();
      }
      if (!more) return { measured, libipsec: Number.NaN };
      printProfile('myelin, one stream', (await profiled(seconds, () => loads.one(myelin)))[1]);
      printProfile('myelin, eight streams', (await profiled(seconds, () => loads.eight(myelin)))[1]);
      const most = { length: datagram, from: measured.of('udp', 'myelin') };
      printProfile('myelin, datagrams', (await profiled(seconds, () => udpRate(myelin, most)))[1]);
      const strongswan = await openStrongswan(sites, ['10.250.1.0/24', '10.250.2.0/24']);
      const libipsec: number[] = [];
      try {
        for (let round = 0; round < 2; round++) libipsec.push(await loads.one(bare));
      } finally {
        await strongswan.close();
      }
      return { measured, libipsec: median(libipsec) };
    } finally {
      await plain.close();
    }
  } finally {
    await lab.down();
  }
}

const speedLine = z.object({ what: z.string(), aead: z.string(), bytes: z.number(), ns: z.number() });

/** What one core does for a packet, without the kernel: AES-GCM alone and the engine's whole work. Prints it. */
async function ownSpeed(): Promise<void> {
  const speed = fileURLToPath(new URL('../build/native/speed', import.meta.url));
  const { stdout } = await runCommand(speed, [], { timeout: 60_000 });
  console.error('on one core, without the kernel:');
  for (const line of stdout.trim().split('\n')) {
    const { what, aead, bytes, ns } = speedLine.parse(JSON.parse(line));
    const rate = `${ns.toFixed(0)} ns a packet, ${((bytes * 8) / ns).toFixed(1)} Gbit/s`;
    console.error(`  ${what} (${aead}), ${bytes} bytes: ${rate}`);
  }
}

/**
 * Pod to pod across two nodes through the engine, against wireguard-go and strongSwan's userspace ESP between the same two
 * node namespaces over the same underlay, with plain pods behind them, and against those in clear.
 */
export async function run(): Promise<BenchResult[]> {
  await ownSpeed();
  const { measured: usual, libipsec } = await measure({
    mtu: 1500,
    loads: ['one', 'eight', 'udp', 'trip'],
    more: true,
  });
  const { measured: jumbo } = await measure({ mtu: 9000, loads: ['one', 'eight'], more: false });
  const against = (
    name: string,
    unit: string,
    load: Load,
    path: Path,
    bound: Parameters<typeof ratioBar>[4],
    of = usual,
  ) => ratioBar(name, unit, of.of(load, 'myelin'), of.of(load, path), bound);
  const stated = { atLeast: 0 };
  return [
    against('pod to pod across nodes, TCP, against wireguard-go', 'Mbit/s', 'one', 'wireguard', { atLeast: 2 }),
    against('the same with eight streams', 'Mbit/s', 'eight', 'wireguard', { atLeast: 2 }),
    against('the same, against the plain unencrypted path', 'Mbit/s', 'one', 'plain', { atLeast: 0.35 }),
    against('the same with eight streams', 'Mbit/s', 'eight', 'plain', { atLeast: 0.35 }),
    against('UDP packets of 1400 bytes, against wireguard-go', 'packets/s', 'udp', 'wireguard', { atLeast: 2 }),
    against('the same, against the plain unencrypted path', 'packets/s', 'udp', 'plain', stated),
    against('request/response, against wireguard-go', 'µs', 'trip', 'wireguard', { atMost: 0.6 }),
    against('the same, against the plain unencrypted path', 'µs', 'trip', 'plain', { atMost: 1000 }),
    ratioBar('TCP, against strongSwan with kernel-libipsec', 'Mbit/s', usual.of('one', 'myelin'), libipsec, {
      atLeast: 3,
    }),
    against('MTU 9000, TCP, against wireguard-go', 'Mbit/s', 'one', 'wireguard', stated, jumbo),
    against('the same, against the plain unencrypted path', 'Mbit/s', 'one', 'plain', stated, jumbo),
    against('MTU 9000, eight streams, against wireguard-go', 'Mbit/s', 'eight', 'wireguard', stated, jumbo),
    against('the same, against the plain unencrypted path', 'Mbit/s', 'eight', 'plain', stated, jumbo),
  ];
}
