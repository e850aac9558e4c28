import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { z } from 'zod';
import { run } from '../../src/kernel/command.ts';
import { ip } from '../../src/kernel/ip.ts';
import { nft } from '../../src/kernel/nft.ts';
import { assertBounded, assertLossless, LossLab, nodes, say } from '../support/lossless.ts';

/*
 * An underlay as they are: it loses packets, overtakes them, and puts a node behind an address and a port that change. The
 * tunnels add nothing to what the underlay loses.
 */

const linksSchema = z.array(z.object({ address: z.string() }));
const counterSchema = z.object({
  nftables: z.array(z.object({ counter: z.object({ name: z.string(), packets: z.number() }).optional() })),
});

describe('an underlay that is not what one would wish', () => {
  let lab: LossLab;
  let fabric: { netns: string };
  before(async () => {
    lab = await LossLab.up({ rekeySeconds: 4, extra: ['--nat-keepalive-seconds', '1'] });
    fabric = lab.lab.lab.plan.fabric;
    await lab.singleFrames();
  });
  after(() => lab?.down());

  const rules = (script: string) =>
    nft(`table bridge odd\ndelete table bridge odd\ntable bridge odd {\n${script}\n}\n`, { netns: fabric.netns });

  test('1 % of packets is lost and a tenth is overtaken: exactly those are missing, and the transfer is whole', async () => {
    const bytes = 333;
    // IPv4 and UDP, ESP’s header and IV, padding with its two bytes, ICV; and the outer UDP header.
    const length = 16 + Math.ceil((28 + bytes + 2) / 4) * 4 + 16 + 8;
    const [one, two] = nodes;
    await rules(`
      counter there {}
      counter back {}
      chain forward {
        type filter hook forward priority 0; policy accept;
        udp dport 4500 udp length != ${length} numgen random mod 100 == 0 drop
        udp dport 4500 udp length ${length} iifname "${one}" numgen random mod 100 == 0 counter name there drop
        udp dport 4500 udp length ${length} iifname "${two}" numgen random mod 100 == 0 counter name back drop
        udp dport 4500 udp length ${length} numgen random mod 10 == 0 meta priority set 1:20
      }`);
    // A tenth of the packets waits in a queue of its own, behind each other.
    for (const node of nodes) {
      const tc = (...args: string[]) => run('tc', args, { netns: fabric.netns });
      await tc('qdisc', 'replace', 'dev', node, 'root', 'handle', '1:', 'htb', 'default', '10');
      await tc(...`class add dev ${node} parent 1: classid 1:10 htb rate 10gbit quantum 60000`.split(' '));
      await tc(
        ...`class add dev ${node} parent 1: classid 1:20 htb rate 600kbit burst 600 cburst 600 quantum 1500`.split(' '),
      );
    }
    try {
      const pair = await lab.pair();
      const outcome = await lab.during(pair, () => lab.rekeyed('node-1', pair, 2), { bytes });
      say('1 % lost, 10 % overtaken', outcome);
      const { stdout } = await run('nft', ['-j', 'list', 'counters', 'table', 'bridge', 'odd'], fabric);
      const dropped = (name: string) =>
        counterSchema.parse(JSON.parse(stdout)).nftables.find(({ counter }) => counter?.name === name)?.counter
          ?.packets;
      const { there, back, tcp } = outcome;
      assert.deepEqual(
        { there: there.lost - there.lostByHost, back: back.lost - back.lostByHost },
        { there: dropped('there'), back: dropped('back') },
        JSON.stringify(outcome),
      );
      assert.ok(there.lost > 0 && there.overtaken > 0 && back.lost > 0 && back.overtaken > 0, 'the underlay was fine');
      assert.deepEqual({ state: tcp.state, missing: tcp.sent - tcp.received }, { state: 'ended', missing: 0 });
    } finally {
      await nft('delete table bridge odd', { netns: fabric.netns });
      for (const node of nodes) await run('tc', ['qdisc', 'del', 'dev', node, 'root'], { netns: fabric.netns });
    }
  });

  /** Puts node-2 behind a NAT: nobody reaches it who was not asked, and the others see this address and port. */
  async function behindNat(address: string, port: number): Promise<void> {
    const [own = ''] = lab.lab.lab.node('node-2').addresses;
    await rules(`
      counter kept {}
      chain forward {
        type filter hook forward priority 0; policy accept;
        iifname "node-2" udp dport 4500 udp length 9 counter name kept
        iifname "node-2" ip saddr ${own} udp sport 4500 ip saddr set ${address} udp sport set ${port} accept
        oifname "node-2" ip daddr ${address} udp dport ${port} ip daddr set ${own} udp dport set 4500 accept
        oifname "node-2" udp dport 4500 drop
        oifname "node-2" tcp dport 4747 tcp flags & (syn | ack) == syn drop
      }`);
  }

  test('a node behind a NAT reaches out; the NAT gives it another port, then another address', async () => {
    const [own = ''] = lab.lab.lab.node('node-2').addresses;
    const other = own.replace(/\.\d+$/, '.99');
    const [link] = linksSchema.parse(
      await ip(['link', 'show', 'dev', 'eth0'], { netns: lab.lab.lab.node('node-2').netns }),
    );
    await ip(['neigh', 'replace', other, 'lladdr', link?.address ?? '', 'dev', 'eth0', 'nud', 'permanent'], {
      netns: lab.lab.lab.node('node-1').netns,
    });
    try {
      await behindNat(own, 61_001);
      const pair = await lab.pair();
      // Nobody can begin but the node behind the NAT; where to answer is known with its first packet.
      const { here, there } = pair;
      const ping = ['ping', '-q', '-c', '3', '-i', '0.2', '-W', '10', here.addresses[0]];
      assert.match((await lab.lab.exec(there, ping, { privileged: true })).stdout, /\b[123] received/);
      const steady = await lab.during(pair, () => lab.rekeyed('node-2', pair, 1));
      say('behind a NAT', steady);
      assertLossless(steady);
      const moving = await lab.during(pair, async (meter) => {
        await behindNat(own, 61_002);
        await meter.progress(1000);
        await behindNat(other, 61_003);
        await meter.progress(1000);
      });
      say('the NAT gives another port, then another address', moving);
      // What was on its way to where nobody is any more; nothing in the direction that tells.
      assertBounded(moving, { there: 500, back: 0 });
      const after = await lab.during(pair, () => lab.rekeyed('node-2', pair, 1));
      say('new keys go where the old ones went', after);
      assertLossless(after);
      const { stdout } = await run('nft', ['list', 'counter', 'bridge', 'odd', 'kept'], fabric);
      assert.ok(Number(/packets (\d+)/.exec(stdout)?.[1]) > 0, 'nobody keeps the NAT’s mapping');
    } finally {
      await nft('delete table bridge odd', { netns: fabric.netns });
    }
  });
});
