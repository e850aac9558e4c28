import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { run } from '../../src/kernel/command.ts';
import { ipBatch } from '../../src/kernel/ip.ts';
import { createNamespace, deleteNamespace } from '../../src/kernel/netns.ts';
import { nft } from '../../src/kernel/nft.ts';
import { inNamespace, type MeterReport, StreamMeter } from '../support/meter.ts';

/*
 * The meter itself, over a bare veth: what it says is lost, doubled or late is what was, to the packet.
 */

describe('the stream meter', () => {
  const name = `mym${process.pid}${randomBytes(2).toString('hex')}`;
  const [one, two] = [`/run/netns/${name}-1`, `/run/netns/${name}-2`];

  before(async () => {
    for (const netns of [one, two]) await createNamespace(netns);
    await ipBatch([`link add eth0 type veth peer name eth0 netns ${two}`], { netns: one });
    for (const [i, netns] of [one, two].entries())
      await ipBatch([`addr add 192.0.2.${i + 1}/24 dev eth0`, 'link set eth0 up'], { netns });
  });
  after(() => {
    for (const netns of [one, two]) deleteNamespace(netns);
  });

  async function measured(during: (meter: StreamMeter) => Promise<void>): Promise<MeterReport> {
    const meter = await StreamMeter.between(inNamespace('1', one, '192.0.2.1'), inNamespace('2', two, '192.0.2.2'));
    try {
      await meter.go();
      await meter.progress(300);
      await during(meter);
      await meter.progress(300);
      return await meter.finish();
    } finally {
      meter.quit();
    }
  }

  const rules = (netns: string, rule: string) =>
    nft(
      `table inet odd {
        counter hit {}
        chain input {
          type filter hook input priority 0
          ${rule}
        }
      }
`,
      { netns },
    );
  const hits = async (netns: string) => {
    const { stdout } = await run('nft', ['list', 'counter', 'inet', 'odd', 'hit'], { netns });
    return Number(/packets (\d+)/.exec(stdout)?.[1]);
  };

  test('says that nothing was lost where nothing was', async () => {
    const { there, back, tcp } = await measured(async () => {});
    for (const { sent, lost, doubled, overtaken, missing } of [there, back]) {
      assert.ok(sent >= 600);
      assert.deepEqual({ lost, doubled, overtaken, missing }, { lost: 0, doubled: 0, overtaken: 0, missing: [] });
    }
    assert.deepEqual([tcp.state, tcp.received - tcp.sent, tcp.failure], ['ended', 0, '']);
  });

  test('counts every packet that was dropped on the way, and knows which, and for how long nothing came', async () => {
    const { there, back, tcp } = await measured(async (meter) => {
      await rules(two, 'udp dport 7000 counter name hit drop');
      // One direction stands still, the other goes on.
      const from = (await meter.report()).back.received;
      while ((await meter.report()).back.received < from + 200);
      await nft('flush chain inet odd input', { netns: two });
    });
    assert.equal(there.lost, await hits(two));
    assert.ok(there.lost >= 200 && there.lostByHost === 0);
    const [range] = there.missing;
    assert.equal(there.missing.length, 1);
    assert.equal((range?.[1] ?? 0) - (range?.[0] ?? 0) + 1, there.lost);
    assert.equal(there.gapBefore, (range?.[1] ?? 0) + 1);
    assert.ok(there.gapMs > 150);
    assert.equal(back.lost, 0);
    assert.equal(tcp.state, 'ended');
    await nft('delete table inet odd', { netns: two });
  });

  test('a transfer that is broken is said to be', async () => {
    const { tcp } = await measured(async (meter) => {
      await rules(two, 'tcp dport 7000 counter name hit reject with tcp reset');
      for (;;) if ((await meter.report()).tcp.state === 'broken') break;
    });
    assert.notEqual(tcp.failure, '');
    await nft('delete table inet odd', { netns: two });
  });
});
