import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { run } from '../../src/kernel/command.ts';
import { ipBatch } from '../../src/kernel/ip.ts';
import { nft } from '../../src/kernel/nft.ts';
import type { TestPod } from '../support/lab.ts';
import { assertLossless, LossLab, nodes, say } from '../support/lossless.ts';

/*
 * Networks that are smaller than one thinks, that speak the other family, and that mark what passes.
 */

/** Frames of a capture that a filter of pcap-filter(7) picks, a line of tcpdump each. */
async function picked(file: Buffer, filter: string): Promise<string[]> {
  const directory = mkdtempSync(join(tmpdir(), 'myelin-odd-'));
  try {
    const path = join(directory, 'capture.pcap');
    writeFileSync(path, file);
    const { stdout } = await run('tcpdump', ['-nn', '-r', path, ...filter.split(' ')]);
    return stdout.split('\n').filter((line) => /^\d\d:/.test(line));
  } finally {
    rmSync(directory, { recursive: true });
  }
}

const fragments = '(ip and ip[6:2] & 0x3fff != 0) or (ip6 and ip6[6] == 44)';

describe('an underlay of IPv4 that gets smaller', () => {
  let lab: LossLab;
  let here: TestPod;
  let there: TestPod;
  before(async () => {
    lab = await LossLab.up();
    await lab.singleFrames();
    ({ here, there } = await lab.pair());
    await lab.lab.exec(here, ['ping', '-c', '1', '-W', '10', there.addresses[0]], { privileged: true });
  });
  after(() => lab?.down());

  const ping = async (...args: string[]) => {
    const { stdout, stderr } = await lab.lab.exec(here, ['ping', '-W', '2', ...args], { privileged: true });
    return stdout + stderr;
  };

  /** Until a packet of this inner length, and no longer one, gets through from `here`. */
  async function fits(length: number): Promise<void> {
    await lab.lab.eventually(
      async () => {
        for (const [address, headers] of [
          [there.addresses[0], 28],
          [there.addresses[1], 48],
        ] as const) {
          const dontFragment = ['-c', '1', '-M', 'do', address];
          const larger = await ping('-s', `${length + 4 - headers}`, ...dontFragment);
          assert.match(
            larger,
            /mtu ?= ?\d+|message too long|Packet too big|Frag needed/i,
            'nobody says that it is too big',
          );
          assert.match(await ping('-s', `${length - headers}`, ...dontFragment), /\b1 received/);
        }
      },
      { timeoutMs: 30_000 },
    );
  }

  test('DSCP is copied outwards; what routers say of congestion comes in, and where it cannot the packet is dropped', async () => {
    const capture = await lab.lab.capture({ filter: 'udp port 4500' });
    // Expedited forwarding (RFC 3246), not ECN-capable: DSCP 46.
    assert.match(await ping('-c', '2', '-i', '0.2', '-Q', '0xb8', there.addresses[0]), /\b2 received/);
    const { file } = await capture.stop();
    assert.ok((await picked(file, 'udp port 4500 and ip[1] == 0xb8')).length >= 2);

    const { netns } = lab.lab.lab.plan.fabric;
    const mark = (rule: string) =>
      nft(
        `table bridge odd {
          chain forward {
            type filter hook forward priority 0
            iifname "node-1" udp dport 4500 ${rule}
          }
        }`,
        { netns },
      );
    const seen = (filter: string) =>
      lab.lab.command(there, ['tcpdump', '-nn', '-l', '-c', '1', '-i', 'eth0', ...filter.split(' ')], {
        privileged: true,
      });
    await mark('ip ecn set ce');
    try {
      const before = await lab.agents.dropped('node-2', 'ECN');
      assert.match(await ping('-c', '2', '-i', '0.2', there.addresses[0]), /\b0 received/);
      await lab.lab.eventually(async () => assert.equal(await lab.agents.dropped('node-2', 'ECN'), before + 2));
      // ECT(0) goes in, CE comes out.
      const [file = '', ...args] = await seen('icmp and ip[1] & 3 == 3');
      const sniffing = run(file, args, { timeout: 20_000 });
      await lab.lab.eventually(async () => {
        assert.match(await ping('-c', '1', '-Q', '2', there.addresses[0]), /\b1 received/);
        const done = await Promise.race([
          sniffing.then(() => true),
          new Promise((resolve) => setTimeout(resolve, 100)),
        ]);
        assert.ok(done === true);
      });
    } finally {
      await nft('delete table bridge odd', { netns });
    }
  });

  test('a router on the way takes smaller packets only: transfers go on, and what is larger is complained of', async () => {
    const { plan } = lab.lab.lab;
    const [address = ''] = lab.lab.lab.node('node-2').addresses;
    const [router] = plan.world.addresses;
    const narrow = 1420;
    await run(
      'sysctl',
      ['-qw', 'net.ipv4.ip_forward=1', 'net.ipv4.conf.all.send_redirects=0', 'net.ipv4.conf.eth0.send_redirects=0'],
      {
        netns: plan.world.netns,
      },
    );
    await ipBatch([`route replace ${address}/32 dev eth0 mtu lock ${narrow}`], { netns: plan.world.netns });
    try {
      const pair = { here, there };
      const outcome = await lab.during(pair, async (meter) => {
        await ipBatch([`route replace ${address}/32 via ${router}`], { netns: lab.lab.lab.node('node-1').netns });
        await meter.progress(2000);
        // Until a long stream of large segments, which no longer fit, has gone on.
        const { tcp } = await meter.report();
        await lab.lab.eventually(
          async () =>
            assert.ok((await meter.report()).tcp.received > tcp.received + 1_000_000, 'the transfer stands still'),
          { timeoutMs: 30_000 },
        );
      });
      say('a router takes 1420 bytes', outcome);
      // Small datagrams always fitted.
      assertLossless(outcome);
      await fits(1356);
    } finally {
      await ipBatch([`route del ${address}/32 via ${router}`], { netns: lab.lab.lab.node('node-1').netns });
    }
  });

  test('the uplink’s own MTU changes: no outer packet needs fragmenting, SYNs announce what fits, new pods get less', async () => {
    for (const node of nodes) await ipBatch(['link set eth0 mtu 1400'], { netns: lab.lab.lab.node(node).netns });
    const capture = await lab.lab.capture({ filter: 'udp port 4500' });
    const pair = { here, there };
    // Where it was last told: an exception of the kernel's from before may be smaller still, and is not in the way here.
    const fresh = await lab.pair();
    await lab.lab.eventually(async () => {
      const { stdout } = await lab.lab.exec((await lab.pair()).here, ['cat', '/sys/class/net/eth0/mtu']);
      assert.equal(Number(stdout), 1400 - 96);
    });
    const sniff = ['tcpdump', '-nn', '-l', '-c', '1', '-i', 'eth0', 'tcp[13] & 2 != 0 and dst port 7000'];
    const [file = '', ...args] = await lab.lab.command(there, sniff, { privileged: true });
    const sniffing = run(file, args, { timeout: 30_000 });
    const outcome = await lab.during(pair, async (meter) => void (await meter.progress(1000)));
    say('an uplink of 1400 bytes', outcome);
    assertLossless(outcome);
    const announced = Number(/mss (\d+)/.exec((await sniffing).stdout)?.[1]);
    assert.ok(announced > 0 && announced <= 1338 - 40, `a SYN announced ${announced}`);
    const { file: seen } = await capture.stop();
    assert.deepEqual((await picked(seen, fragments)).slice(0, 5), []);
    assert.deepEqual((await picked(seen, 'udp port 4500 and greater 1415')).slice(0, 5), []);
    assert.ok(fresh.here.uid !== '');
  });
});

describe('an underlay of IPv6, and another port', () => {
  let lab: LossLab;
  before(async () => {
    lab = await LossLab.up({ rekeySeconds: 4, extra: ['--underlay-family', '6', '--esp-port', '4600'] });
    await lab.singleFrames();
  });
  after(() => lab?.down());

  test('pods’ IPv4 and IPv6 are carried, keys renewed, nothing lost; the wire has ESP in UDP over IPv6 only, whole', async () => {
    const pair = await lab.pair();
    const capture = await lab.lab.capture({ filter: 'udp or ip6 or ip' });
    for (const family of [4, 6] as const) {
      const outcome = await lab.during(pair, () => lab.rekeyed('node-1', pair, 1), { family });
      say(`IPv${family} over IPv6`, outcome);
      assertLossless(outcome);
    }
    const { file, lost } = await capture.stop();
    assert.equal(lost, 0);
    assert.ok((await picked(file, 'ip6 and udp port 4600')).length > 1000);
    assert.deepEqual((await picked(file, 'ip and udp portrange 4500-4600')).slice(0, 5), []);
    assert.deepEqual((await picked(file, 'net 10.244.0.0/16 or net fd00:10:244::/56')).slice(0, 5), []);
    assert.deepEqual((await picked(file, 'udp port 4600 and greater 1515')).slice(0, 5), []);
    assert.deepEqual((await picked(file, fragments)).slice(0, 5), []);
    assert.equal((await lab.tunnel('node-1', pair))?.remoteAddress.includes(':'), true);
  });
});
