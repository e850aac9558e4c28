import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { run } from '../../../src/kernel/command.ts';
import { ipBatch } from '../../../src/kernel/ip.ts';
import type { IpAddress } from '../../../src/model/address.ts';
import { DriverLab, type DriverNode } from '../../support/driver-lab.ts';

/*
 * An underlay that takes less than the pods' devices were made for: 1,404 bytes over 1,500. What their SYNs announce is
 * lowered by the node that seals them.
 */

const stream = fileURLToPath(new URL('../../support/tcp-stream.ts', import.meta.url));
let lab: DriverLab;
let a: DriverNode;
let b: DriverNode;

before(async () => {
  lab = await DriverLab.open(['xfrm', 'xfrm']);
  [a, b] = lab.nodes;
  await lab.connect(0x2000_1000);
});
after(() => lab?.close());

/** What the first SYN (or SYN and ACK) that comes into the pod announces, from now on. */
async function announcedTo(node: DriverNode, to: IpAddress): Promise<{ readonly mss: Promise<number> }> {
  const family = to.includes(':') ? 'ip6[6] == 6 and ip6[53] & 2 != 0' : 'tcp[13] & 2 != 0';
  const args = [`--net=${node.pod}`, 'tcpdump', '-nn', '-l', '-c', '1', '-i', 'eth0', `dst host ${to} and ${family}`];
  const child = spawn('nsenter', args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const ended = once(child, 'close');
  let complained = '';
  await new Promise<void>((ready) => {
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      complained += text;
      if (complained.includes('listening on')) ready();
    });
    child.once('close', () => ready());
  });
  const mss = ended.then(([code, signal]) => {
    const found = /mss (\d+)/.exec(said)?.[1];
    assert.ok(found !== undefined, `tcpdump ended with ${code ?? signal}: ${said}${complained}`);
    return Number(found);
  });
  return { mss };
}

/** A transfer from one pod to the other. @returns What the two ends were told. */
async function transfer(from: DriverNode, to: DriverNode, family: 0 | 1): Promise<readonly [number, number]> {
  const sniffed = await Promise.all([announcedTo(to, to.addresses[family]), announcedTo(from, from.addresses[family])]);
  const server = spawn('nsenter', [`--net=${to.pod}`, process.execPath, stream, 'serve', '7001'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let received = '';
  server.stdout.setEncoding('utf8').on('data', (text: string) => {
    received += text;
  });
  await once(server.stdout, 'data');
  const closed = once(server, 'close');
  const sent = await run(process.execPath, [stream, 'send', to.addresses[family], '7001', '1'], {
    netns: from.pod,
    timeout: 60_000,
  });
  await closed;
  assert.equal(received, `listening\n${sent.stdout}`);
  const [syn, answer] = await Promise.all(sniffed.map(({ mss }) => mss));
  return [syn ?? 0, answer ?? 0];
}

test('where the underlay takes all that pods send, what they announce is left alone', async () => {
  assert.deepEqual(await transfer(a, b, 0), [1404 - 40, 1404 - 40]);
  assert.deepEqual(await transfer(a, b, 1), [1404 - 60, 1404 - 60]);
});

test('where it takes less, SYN and answer announce what fits: the uplink’s MTU, and that of one way', async () => {
  for (const { netns } of lab.nodes) await ipBatch(['link set eth0 mtu 1400'], { netns });
  // (1400 − 20 − 8 − 32) rounded down to four, less 2.
  assert.deepEqual(await transfer(a, b, 0), [1338 - 40, 1338 - 40]);
  assert.deepEqual(await transfer(b, a, 1), [1338 - 60, 1338 - 60]);
  await ipBatch([`route add ${b.underlay}/32 dev eth0 mtu 1380`], { netns: a.netns });
  assert.deepEqual(await transfer(a, b, 0), [1318 - 40, 1338 - 40]);
  assert.deepEqual(await transfer(b, a, 1), [1338 - 60, 1318 - 60]);
});
