import { percentile } from '../src/cli/percentile.ts';
import { run as runCommand } from '../src/kernel/command.ts';
import { TestLab } from '../test/support/lab.ts';
import { absoluteBar, type BenchResult } from './result.ts';
import { podNetns } from './support/lab-pods.ts';

const pairs = 8;

/**
 * The first packet between two pods that never talked: one ping, with the handshake of both pods' certificates, both
 * key installations and the held packet's release in it. Every client pings every server: `pairs`² fresh tunnels.
 */
export async function run(): Promise<BenchResult[]> {
  const lab = await TestLab.up({ nodes: 2, dns: false });
  try {
    const names = Array.from({ length: pairs }, (_, i) => i);
    const clients = await Promise.all(names.map((i) => lab.pod(`client-${i}`).on('node-1').create()));
    const servers = await Promise.all(names.map((i) => lab.pod(`server-${i}`).on('node-2').create()));
    const times: number[] = [];
    let lost = 0;
    for (const client of clients) {
      const netns = await podNetns(lab.lab, client);
      for (const server of servers) {
        const { stdout } = await runCommand('ping', ['-c', '1', '-W', '5', server.addresses[0]], { netns }).catch(
          () => ({ stdout: '' }),
        );
        const ms = /time=([\d.]+) ms/.exec(stdout)?.[1];
        if (ms === undefined) lost++;
        else times.push(Number(ms));
      }
    }
    return [
      absoluteBar('first packet with its handshake, p50', 'ms', percentile(times, 0.5), { atMost: 15 }),
      absoluteBar('first packet with its handshake, p99', 'ms', percentile(times, 0.99), { atMost: 60 }),
      absoluteBar(`first packets lost, of ${pairs ** 2}`, 'packets', lost, { atMost: 0 }),
    ];
  } finally {
    await lab.down();
  }
}
