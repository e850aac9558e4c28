import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { run as runCommand } from '../src/kernel/command.ts';
import { ipBatch } from '../src/kernel/ip.ts';
import { type IpAddress, parseIp } from '../src/model/address.ts';
import type { InboundSa, OutboundSa } from '../src/tunnel/driver.ts';
import { EngineLab, type EngineNode } from '../test/support/engine-lab.ts';
import { absoluteBar, type BenchResult, median, ratioBar } from './result.ts';
import { startDaemon, waitUntil } from './support/daemon.ts';

/** Of pods on each side; every pair of them has a tunnel, both ways. */
const [few, many] = [10, 100];
const rounds = 5;
/** Installing and removing a hundred pairs, so often. */
const installRounds = 20;
const rate = 40_000;
const trafficMs = 2000;
const port = '11113';
const flood = fileURLToPath(new URL('../build/native/flood', import.meta.url));

const address = (node: 1 | 2, pod: number): IpAddress => parseIp(`10.251.${node}.${100 + pod}`);

/** A hundred pod pairs and ten thousand between two engines: what a packet, an installation and a pair cost. */
export async function run(): Promise<BenchResult[]> {
  const lab = await EngineLab.open();
  try {
    const [a, b] = lab.nodes;
    for (const [i, node] of lab.nodes.entries())
      await ipBatch(
        Array.from({ length: many + 2 }, (_, pod) => `addr add ${address(i === 0 ? 1 : 2, pod)}/24 dev eth0`),
        { netns: node.pod },
      );
    const within = (pods: number) =>
      Array.from({ length: pods * pods }, (_, i): Pair => [i % pods, Math.floor(i / pods)]);
    const memory: number[] = [residentKib(a)];
    await connect(lab, within(few));
    await installTime(lab); // the compilers' time is nobody's
    const installFew = await installTime(lab);
    const known = new Set(within(few).map(String));
    const rest = within(many).filter((pair) => !known.has(String(pair)));
    memory.push(residentKib(a));
    for (let i = 0; i < rest.length; i += 100) await connect(lab, rest.slice(i, i + 100));
    memory.push(residentKib(a));
    const installMany = await installTime(lab);
    const [, before = 0, after = 0] = memory;
    // The tables hold ten thousand pairs in both: what differs is how many of them carry packets, one each in turn.
    const wide = await packetCosts(lab);
    await removeAll(a, b, rest);
    const narrow = await packetCosts(lab, few);
    return [
      ratioBar('a packet, 10,000 pairs in turn against 100', 'ns', wide.many, narrow.few, { atMost: 1.2 }),
      ratioBar('a packet, of 100 pairs in turn, 10,000 installed against 100', 'ns', wide.few, narrow.few, {
        atMost: 1.2,
      }),
      ratioBar('installing an SA, 10,000 pairs installed against 100', 'µs', installMany, installFew, { atMost: 1.2 }),
      absoluteBar('memory of a pair’s two SAs', 'KiB', (after - before) / rest.length, { atMost: 16 }),
    ];
  } finally {
    await lab.close();
  }
}

/** Numbers of a pod on the first node and one on the second. */
type Pair = readonly [number, number];

const spiOf = ([a, b]: Pair, back: boolean) => 0x1_0000 + (b * 128 + a) * 2 + (back ? 1 : 0);

/** Both ends of one direction of a pair. */
function makeSa(lab: EngineLab, pair: Pair, back: boolean): { inbound: InboundSa; outbound: OutboundSa } {
  const [near, far] = back ? [lab.nodes[1], lab.nodes[0]] : lab.nodes;
  const ends = [address(1, pair[0]), address(2, pair[1])] as const;
  const [local, remote] = back ? [ends[1], ends[0]] : ends;
  const common = { spi: spiOf(pair, back), lifetimes: {}, note: 'x'.repeat(400) };
  const key = randomBytes(32);
  const salt = randomBytes(4);
  return {
    outbound: {
      ...common,
      direction: 'out',
      selectors: [{ local, remote }],
      peer: { address: far.underlay, port: 4500 },
      key: Buffer.from(key),
      salt: Buffer.from(salt),
    },
    inbound: {
      ...common,
      direction: 'in',
      selectors: [{ local: remote, remote: local }],
      peer: { address: near.underlay, port: 4500 },
      key,
      salt,
    },
  };
}

async function connect(lab: EngineLab, pairs: readonly Pair[]): Promise<void> {
  const [a, b] = lab.nodes;
  const forward = pairs.map((pair) => makeSa(lab, pair, false));
  const back = pairs.map((pair) => makeSa(lab, pair, true));
  await Promise.all([
    ...forward.map(({ inbound }) => b.driver.installInbound(inbound)),
    ...back.map(({ inbound }) => a.driver.installInbound(inbound)),
  ]);
  await Promise.all([
    ...forward.map(({ outbound }) => a.driver.installOutbound(outbound)),
    ...back.map(({ outbound }) => b.driver.installOutbound(outbound)),
  ]);
}

async function removeAll(a: EngineNode, b: EngineNode, pairs: readonly Pair[]): Promise<void> {
  for (const node of [a, b]) {
    const spis = new Set(pairs.flatMap((pair) => [spiOf(pair, false), spiOf(pair, true)]));
    const sas = (await node.driver.list()).filter(({ spi }) => spis.has(spi));
    for (let i = 0; i < sas.length; i += 200)
      await Promise.all(sas.slice(i, i + 200).map((sa) => node.driver.remove(sa)));
  }
}

/** @returns Microseconds for one SA, a hundred pairs at a time, as the agent installs them. */
async function installTime(lab: EngineLab): Promise<number> {
  const [a] = lab.nodes;
  const pairs = Array.from({ length: 100 }, (_, i): Pair => [i, many + 1]);
  const samples: number[] = [];
  for (let round = 0; round < installRounds; round++) {
    const sas = pairs.flatMap((pair) => [makeSa(lab, pair, false).outbound, makeSa(lab, pair, true).inbound]);
    const start = performance.now();
    await Promise.all(
      sas.map((sa) => (sa.direction === 'in' ? a.driver.installInbound(sa) : a.driver.installOutbound(sa))),
    );
    samples.push(((performance.now() - start) * 1000) / sas.length);
    await Promise.all(sas.map((sa) => a.driver.remove(sa)));
  }
  return median(samples);
}

/** @returns Nanoseconds of both engines' processor time for a packet, in the kernel too, with traffic over so many pairs. */
async function packetCosts(lab: EngineLab, only?: number): Promise<{ few: number; many: number }> {
  const [, b] = lab.nodes;
  const receiver = startDaemon(flood, ['receive', port], { netns: b.pod });
  try {
    await waitUntil('the receiver is ready', 5, () => receiver.output().includes('ready'));
    const samples = { few: [] as number[], many: [] as number[] };
    await cost(lab, only ?? many); // neighbours are asked for
    for (let round = 0; round < rounds; round++) {
      samples.few.push(await cost(lab, few));
      if (only === undefined) samples.many.push(await cost(lab, many));
    }
    return { few: median(samples.few), many: median(samples.many) };
  } finally {
    await receiver.close();
  }
}

async function cost(lab: EngineLab, pods: number): Promise<number> {
  const [a, b] = lab.nodes;
  const spent = () => lab.nodes.reduce((sum, node) => sum + processorNs(node), 0);
  const opened = async () => (await b.driver.statistics()).opened.packets;
  const before = { ns: spent(), packets: await opened() };
  await runCommand(
    flood,
    ['spread', address(1, 0), `${pods}`, address(2, 0), `${pods}`, port, '1372', `${rate}`, `${trafficMs}`],
    { netns: a.pod },
  );
  return (spent() - before.ns) / ((await opened()) - before.packets);
}

/** Of all threads of the node's engine. */
function processorNs({ enginePid }: EngineNode): number {
  const tasks = readdirSync(`/proc/${enginePid}/task`);
  const ns = (task: string) => Number(readFileSync(`/proc/${enginePid}/task/${task}/schedstat`, 'utf8').split(' ')[0]);
  return tasks.reduce((sum, task) => sum + ns(task), 0);
}

function residentKib({ enginePid }: EngineNode): number {
  return Number(/^VmRSS:\s*(\d+)/m.exec(readFileSync(`/proc/${enginePid}/status`, 'utf8'))?.[1]);
}
