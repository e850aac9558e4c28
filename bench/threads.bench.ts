import { randomBytes } from 'node:crypto';
import { ipBatch } from '../src/kernel/ip.ts';
import { parseIp } from '../src/model/address.ts';
import { EngineLab } from '../test/support/engine-lab.ts';
import { type BenchResult, median, ratioBar } from './result.ts';
import { tcpThroughput } from './support/load.ts';

/** Last bytes of pods' addresses, at both ends; such that two threads get two pairs each. */
const pods = [11, 12, 13, 14] as const;
const seconds = 3;
const rounds = 6;

const address = (node: number, pod: number) => parseIp(`10.251.${node}.${pod}`);

/** Two engines, and tunnels between the pods with the same last byte. */
async function open(threads: number): Promise<EngineLab> {
  const lab = await EngineLab.open({ threads });
  const ends = lab.nodes.map((node, i) => ({ node, number: i + 1 }));
  for (const { node, number } of ends)
    await ipBatch(
      pods.map((pod) => `addr add ${address(number, pod)}/24 dev eth0`),
      { netns: node.pod },
    );
  const [a, b] = ends;
  if (a === undefined || b === undefined) throw new Error('a lab has two nodes');
  for (const pod of pods)
    for (const [from, to] of [[a, b] as const, [b, a] as const]) {
      const secret = randomBytes(36);
      const [local, remote] = [address(from.number, pod), address(to.number, pod)];
      const sa = () => ({
        spi,
        key: Buffer.from(secret.subarray(0, 32)),
        salt: Buffer.from(secret.subarray(32)),
        lifetimes: {},
        note: '',
      });
      const spi = to.node.driver.spiOf(randomBytes(4).readUInt32BE());
      const peer = (end: typeof from) => ({ address: end.node.underlay, port: 4500 });
      const [there, back] = [
        { local, remote },
        { local: remote, remote: local },
      ];
      await to.node.driver.installInbound({ ...sa(), direction: 'in', selectors: [back], peer: peer(from) });
      await from.node.driver.installOutbound({ ...sa(), direction: 'out', selectors: [there], peer: peer(to) });
    }
  return lab;
}

/** @returns Mbit/s of one TCP stream for each of so many pairs, together. */
async function load(lab: EngineLab, pairs: number): Promise<number> {
  const [a, b] = lab.nodes;
  const rates = pods.slice(0, pairs).map((pod) => {
    const ends = { client: a.pod, server: b.pod, address: address(2, pod) };
    return tcpThroughput(ends, { seconds, streams: 1, port: 5200 + pod, from: address(1, pod) });
  });
  return (await Promise.all(rates)).reduce((sum, rate) => sum + rate, 0);
}

/** Engines with two threads each way against engines with one, in turn, and first each in its turn. */
export async function run(): Promise<BenchResult[]> {
  const labs = [await open(1), await open(2)] as const;
  const samples = { 1: [[], []] as number[][], 4: [[], []] as number[][] };
  try {
    for (let round = 0; round < rounds; round++)
      for (const pairs of [1, 4] as const)
        for (const which of round % 2 === 0 ? ([0, 1] as const) : ([1, 0] as const))
          samples[pairs][which]?.push(await load(labs[which], pairs));
  } finally {
    for (const lab of labs) await lab.close();
  }
  return ([1, 4] as const).map((pairs) => {
    const [one = [], two = []] = samples[pairs];
    return ratioBar(`two threads against one, ${pairs} pairs`, 'Mbit/s', median(two), median(one), { atLeast: 0 });
  });
}
