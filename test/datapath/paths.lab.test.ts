import assert from 'node:assert/strict';
import { closeSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import * as layouts from '../../src/datapath/layouts.ts';
import { findLink, ipBatch } from '../../src/kernel/ip.ts';
import { PacketSocket } from '../../src/kernel/packet-socket.ts';
import { openTun, type Tun } from '../../src/kernel/tun.ts';
import { runInOwnNamespace } from '../support/namespace.ts';
import { tcp } from '../support/packet.ts';
import { alice, remote } from './cluster.ts';
import { addressOf, families, outOf, TestNode } from './node.ts';

/**
 * Which device a pod's packet for another node leaves by, where the kernel carries tunnels. Two TUN devices show it: one
 * holds packets, the other stands for the xfrm device.
 */
runInOwnNamespace();

const virtioHeader = 10;
let holder: Tun;
let carrier: Tun;
let node: TestNode;
let pod: PacketSocket;
let carrierIndex = 0;

async function indexOf(name: string): Promise<number> {
  const link = await findLink(name);
  assert.ok(link !== undefined);
  return link.ifindex;
}

before(async () => {
  // Nobody speaks here but the test.
  writeFileSync('/proc/sys/net/ipv6/conf/default/disable_ipv6', '1');
  holder = openTun({ name: 'holder' });
  carrier = openTun({ name: 'carrier' });
  await ipBatch([
    `link add alice address ${alice.hostMac} type veth peer name inside address ${alice.mac}`,
    ...['holder', 'carrier', 'alice', 'inside'].map((name) => `link set dev ${name} up`),
  ]);
  node = new TestNode();
  carrierIndex = await indexOf('carrier');
  const holderIndex = await indexOf('holder');
  const ifindex = await indexOf('alice');
  node.configure({ flags: layouts.configFlags.xfrm, tunnelIfindex: holderIndex });
  node.addPod({ ...alice, ifindex });
  node.attach({ pods: [ifindex], holder: holderIndex });
  pod = new PacketSocket('inside');
});
after(() => {
  pod.close();
  node.close();
  for (const fd of [...holder.fds, ...carrier.fds]) closeSync(fd);
});

/** @returns The next packet at the device, behind its virtio header; undefined where none comes. */
async function next(tun: Tun): Promise<Buffer | undefined> {
  const buffer = Buffer.alloc(2048);
  for (let i = 0; i < 40; i++, await sleep(5))
    try {
      return buffer.subarray(0, readSync(tun.fds[0] ?? -1, buffer));
    } catch {
      // EAGAIN
    }
  return undefined;
}

for (const family of families) {
  const pair = { local: addressOf(alice, family), remote: addressOf(remote, family) };
  const sent = outOf(alice, remote, family, tcp({ source: 40000, destination: 80 }));
  const packet = Buffer.from(sent.subarray(14));

  describe(`a pod’s packet for another node, IPv${family}`, () => {
    test('is held while its pair has no path, then goes on by the path, and those after it go there at once', async () => {
      pod.send(sent);
      const held = await next(holder);
      assert.deepEqual(held?.subarray(virtioHeader), packet);

      writeSync(holder.fds[0] ?? -1, held);
      assert.equal(await next(carrier), undefined, 'given back too early, it is dropped');

      node.maps.tunnelPaths.set(pair, carrierIndex);
      writeSync(holder.fds[0] ?? -1, held);
      assert.deepEqual((await next(carrier))?.subarray(virtioHeader), packet);

      pod.send(sent);
      assert.deepEqual((await next(carrier))?.subarray(virtioHeader), packet);
      assert.equal(await next(holder), undefined);
    });

    test('is held again when the path is gone', async () => {
      node.maps.tunnelPaths.delete(pair);
      pod.send(sent);
      assert.deepEqual((await next(holder))?.subarray(virtioHeader), packet);
      assert.equal(await next(carrier), undefined);
    });

    test('goes to the holder whatever the paths say where tunnels are not the kernel’s', async () => {
      node.maps.tunnelPaths.set(pair, carrierIndex);
      const { tunnelIfindex = 0 } = node.maps.config.get(0) ?? {};
      node.configure({ tunnelIfindex });
      pod.send(sent);
      assert.deepEqual((await next(holder))?.subarray(virtioHeader), packet);
      node.configure({ flags: layouts.configFlags.xfrm, tunnelIfindex });
      node.maps.tunnelPaths.delete(pair);
    });
  });
}
