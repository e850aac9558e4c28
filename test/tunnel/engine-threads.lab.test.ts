import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { run } from '../../src/kernel/command.ts';
import { ipBatch } from '../../src/kernel/ip.ts';
import { type IpAddress, parseIp } from '../../src/model/address.ts';
import type { TrafficSelector } from '../../src/tunnel/driver.ts';
import { EngineLab, type EngineNode } from '../support/engine-lab.ts';
import { inNamespace, StreamMeter } from '../support/meter.ts';

/** Pods of either node, each of which talks to the one with the same number. */
const pods = [11, 12, 13, 14, 15, 16];
/** A pod whose two addresses are steered to different threads. */
const crooked = { four: 21, six: 23 };

const four = (node: number, pod: number) => parseIp(`10.251.${node}.${pod}`);
const six = (node: number, pod: number) => parseIp(`fd00:251:${node}::${pod.toString(16)}`);

describe('engines with two threads each way', () => {
  let lab: EngineLab;

  before(async () => {
    lab = await EngineLab.open({ threads: 2 });
    for (const [i, node] of lab.nodes.entries())
      await ipBatch(
        [...pods, crooked.four, crooked.six].flatMap((pod) => [
          `addr add ${four(i + 1, pod)}/24 dev eth0`,
          `addr add ${six(i + 1, pod)}/64 dev eth0 nodad`,
        ]),
        { netns: node.pod },
      );
  });
  after(() => lab.close());

  let joined = 0;

  /** An SA from one node to the other, receiver first, whose SPIs are either thread's in turn. */
  async function install(from: EngineNode, to: EngineNode, selectors: readonly TrafficSelector[]): Promise<void> {
    const spi = to.driver.spiOf(randomBytes(3).readUIntBE(0, 3) * 2 + (joined % 2));
    const [key, salt] = [randomBytes(32), randomBytes(4)];
    const shared = { spi, lifetimes: {}, note: '' };
    const secret = () => ({ key: Buffer.from(key), salt: Buffer.from(salt) });
    const reversed = selectors.map(({ local, remote }) => ({ local: remote, remote: local }));
    const at = (node: EngineNode) => ({ address: node.underlay, port: 4500 });
    await to.driver.installInbound({ ...shared, ...secret(), direction: 'in', selectors: reversed, peer: at(from) });
    await from.driver.installOutbound({ ...shared, ...secret(), direction: 'out', selectors, peer: at(to) });
  }

  /** Both directions of two pods. */
  async function join(addresses: readonly (readonly [near: IpAddress, far: IpAddress])[]): Promise<void> {
    const [a, b] = lab.nodes;
    joined++;
    const there = addresses.map(([local, remote]) => ({ local, remote }));
    await install(a, b, there);
    await install(
      b,
      a,
      there.map(({ local, remote }) => ({ local: remote, remote: local })),
    );
  }

  test('pairs are spread over the threads, each one’s packets come in order, and none is lost while keys change', async () => {
    const [a, b] = lab.nodes;
    for (const node of lab.nodes) assert.equal(node.driver.engine?.threads, 2);
    const addresses = (pod: number) => [[four(1, pod), four(2, pod)] as const, [six(1, pod), six(2, pod)] as const];
    for (const pod of pods) await join(addresses(pod));
    const meters = await Promise.all(
      pods.map((pod, i) => {
        const address = i % 2 === 0 ? four : six;
        const [near, far] = [address(1, pod), address(2, pod)];
        const options = { port: 7100 + i, rate: 500, bytes: 1000 };
        return StreamMeter.between(inNamespace(near, a.pod, near), inNamespace(far, b.pod, far), options);
      }),
    );
    for (const meter of meters) await meter.go();
    for (const meter of meters) {
      const { there, back } = await meter.progress(500);
      assert.deepEqual([there.overtaken, back.overtaken], [0, 0], JSON.stringify({ there, back }));
    }
    // A new key may be another thread's: its first packets may overtake the old one's last.
    for (let round = 0; round < 5; round++) {
      for (const pod of pods) await join(addresses(pod));
      await meters[0]?.progress(50);
    }
    const reports = await Promise.all(meters.map((meter) => meter.finish()));
    for (const { there, back } of reports) {
      for (const way of [there, back]) {
        assert.ok(way.sent > 500, JSON.stringify(way));
        assert.deepEqual([way.lost, way.doubled], [0, 0], JSON.stringify(way));
      }
    }
    for (const node of lab.nodes) {
      const { details, drops, sealed, opened } = await node.driver.statistics();
      delete (drops as Record<string, number>).TUN_NOT_UNICAST;
      // The meters’ TCP comes from the pods’ first addresses, which nothing joins.
      delete (drops as Record<string, number>).HOLD_EXPIRED;
      assert.deepEqual(drops, {});
      for (const [what, all] of [
        ['sealed', sealed.packets],
        ['opened', opened.packets],
      ] as const)
        for (const thread of [0, 1])
          assert.ok((details[`${what}_by_thread_${thread}`] ?? 0) > all / 10, JSON.stringify(details));
      // The kernel's steering and the engine's are the same.
      assert.equal(details.handed_over, 0, JSON.stringify(details));
    }
  });

  test('a pod whose addresses are steered to two threads has its SA at one of them', async () => {
    const [a, b] = lab.nodes;
    await join([
      [four(1, crooked.four), four(2, crooked.four)],
      [six(1, crooked.six), six(2, crooked.six)],
    ]);
    const echo = async (from: IpAddress, to: IpAddress) => {
      const args = ['-q', '-c', '100', '-i', '0.01', '-W', '2', '-I', from, to];
      return Number(/(\d+) received/.exec((await run('ping', args, { netns: a.pod })).stdout)?.[1]);
    };
    const all = await Promise.all([
      echo(four(1, crooked.four), four(2, crooked.four)),
      echo(six(1, crooked.six), six(2, crooked.six)),
    ]);
    assert.deepEqual(all, [100, 100]);
    const handed = await Promise.all([a, b].map(async ({ driver }) => (await driver.statistics()).details.handed_over));
    assert.ok(
      handed.every((count) => (count ?? 0) >= 100),
      JSON.stringify(handed),
    );
  });
});
