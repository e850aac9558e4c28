/**
 * A node for tests with real packets: `ip netns exec`-ed into its namespace, it puts the programs on the pods' links
 * named by its arguments, and joins its tunnel device to a second one, which stands for another node and its pod:
 * packets go from one to the other as they are, with their offloads. It prints `ready`, and ends with its input.
 */
import { readSync, writeSync } from 'node:fs';
import { node as event } from 'koffi';
import { findLink } from '../../src/kernel/ip.ts';
import { openTun } from '../../src/kernel/tun.ts';
import { parseMac } from '../../src/model/address.ts';
import { protocolNumbers } from '../../src/model/port.ts';
import { alice, bob, remote, service, tunnelIfindex } from './cluster.ts';
import { addressOf, families, TestNode } from './node.ts';

const near = openTun({ name: 'myelin0' });
const far = openTun({ name: 'far0' });
const tunnel = (await findLink('myelin0'))?.ifindex ?? tunnelIfindex;

using node = new TestNode();
node.configure({ tunnelIfindex: tunnel });
const links: number[] = [];
for (const [pod, name] of [
  [alice, 'alice'],
  [bob, 'bob'],
] as const) {
  const link = await findLink(name);
  if (link === undefined) throw new Error(`no device ${name}`);
  links.push(link.ifindex);
  node.addPod({ ...pod, ifindex: link.ifindex, hostMac: parseMac(link.mac) });
}
for (const family of families) {
  node.maps.tunnels.set(
    { local: addressOf(alice, family), remote: addressOf(remote, family) },
    { identity: remote.identity, spi: 1, previousSpi: 0 },
  );
  const address = addressOf(service, family);
  for (const [i, protocol] of [protocolNumbers.TCP, protocolNumbers.UDP].entries()) {
    node.addService(
      { address, port: 80, protocol },
      [{ address: addressOf(bob, family), port: 8080 }],
      10 * family + i,
    );
    node.addService(
      { address, port: 81, protocol },
      [{ address: addressOf(alice, family), port: 8080 }],
      100 * family + i,
    );
    node.addService(
      { address, port: 82, protocol },
      [{ address: addressOf(remote, family), port: 8080 }],
      1000 * family + i,
    );
  }
}
node.attach({ pods: links, tunnel });

const buffer = new Uint8Array(10 + 65536);
function shuttle(from: number, to: number): event.PollHandle {
  return event.poll(from, { readable: true }, () => {
    for (let i = 0; i < 64; i++) {
      let length: number;
      try {
        length = readSync(from, buffer);
      } catch {
        return; // EAGAIN
      }
      try {
        writeSync(to, buffer.subarray(0, length));
      } catch {
        // The far device is not up yet, or its end is full: as on a wire, the packet is lost.
      }
    }
  });
}
const near0 = near.fds[0] ?? -1;
const far0 = far.fds[0] ?? -1;
// Kept until the end: a handle that nobody holds is collected, and polls no more.
const shuttles = [shuttle(near0, far0), shuttle(far0, near0)];
process.stdout.write('ready\n');
await new Promise((done) => process.stdin.resume().on('end', done));
for (const handle of shuttles) handle.close();
process.exit(0);
