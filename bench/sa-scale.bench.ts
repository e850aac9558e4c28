import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { run as runCommand } from '../src/kernel/command.ts';
import { ipBatch } from '../src/kernel/ip.ts';
import { type IpAddress, parseIp } from '../src/model/address.ts';
import type { InboundSa, OutboundSa } from '../src/tunnel/driver.ts';
import { EngineLab, type EngineNode } from '../test/support/engine-lab.ts';
import { absoluteBar, type BenchResult, median, ratioBar } from './result.ts';
import { type Daemon, startDaemon, waitUntil } from './support/daemon.ts';

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

/**
 * A hundred pod pairs between two engines and ten thousand between two others: what a packet, an installation and a pair
 * cost. Rounds alternate, so that what else the machine does is in all of them.
 */
export async function run(): Promise<BenchResult[]> {
  const labs = [await EngineLab.open(), await EngineLab.open()] as const;
  const receivers: Daemon[] = [];
  try {
    const [small, large] = labs;
    for (const lab of labs) receivers.push(await prepare(lab));
    await connect(small, pairsOf(few));
    const before = residentKib(large.nodes[0]);
    const pairs = pairsOf(many);
    for (let i = 0; i < pairs.length; i += 100) await connect(large, pairs.slice(i, i + 100));
    const memory = (residentKib(large.nodes[0]) - before) / pairs.length;

    const packets = { small: [] as number[], sameFlows: [] as number[], all: [] as number[] };
    const installs = { small: [] as number[], large: [] as number[] };
    await packetCost(large, many); // neighbours are asked for
    await packetCost(small, few);
    for (let round = 0; round < rounds; round++) {
      packets.small.push(await packetCost(small, few));
      packets.sameFlows.push(await packetCost(large, few));
      packets.all.push(await packetCost(large, many));
    }
    for (const lab of labs) await installTime(lab); // the compilers' time is nobody's
    for (let round = 0; round < installRounds; round++) {
      installs.small.push(await installTime(small));
      installs.large.push(await installTime(large));
    }
    const of = (samples: number[]) => median(samples);
    const bar = { atMost: 1.2 };
    return [
      ratioBar('a packet, 10,000 pairs in turn against 100', 'ns', of(packets.all), of(packets.small), bar),
      ratioBar('the same, 100 of 10,000 pairs against 100', 'ns', of(packets.sameFlows), of(packets.small), bar),
      ratioBar('installing an SA, at 10,000 pairs against 100', 'µs', of(installs.large), of(installs.small), bar),
      absoluteBar('memory of a pair’s two SAs', 'KiB', memory, { atMost: 16 }),
    ];
  } finally {
    for (const receiver of receivers) await receiver.close();
    for (const lab of labs) await lab.close();
  }
}

/** Gives the pods their addresses. @returns What takes the datagrams. */
async function prepare(lab: EngineLab): Promise<Daemon> {
  for (const [i, node] of lab.nodes.entries())
    await ipBatch(
      Array.from({ length: many + 2 }, (_, pod) => `addr add ${address(i === 0 ? 1 : 2, pod)}/24 dev eth0`),
      { netns: node.pod },
    );
  const receiver = startDaemon(flood, ['receive', port], { netns: lab.nodes[1].pod });
  await waitUntil('the receiver is ready', 5, () => receiver.output().includes('ready'));
  return receiver;
}

/** Numbers of a pod on the first node and one on the second. */
type Pair = readonly [number, number];

const pairsOf = (pods: number) => Array.from({ length: pods * pods }, (_, i): Pair => [i % pods, Math.floor(i / pods)]);

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

/** @returns Microseconds for one SA, a hundred pairs at a time, as the agent installs them. They are removed again. */
async function installTime(lab: EngineLab): Promise<number> {
  const [a] = lab.nodes;
  const pairs = Array.from({ length: 100 }, (_, i): Pair => [i, many + 1]);
  const sas = pairs.flatMap((pair) => [makeSa(lab, pair, false).outbound, makeSa(lab, pair, true).inbound]);
  const start = performance.now();
  await Promise.all(
    sas.map((sa) => (sa.direction === 'in' ? a.driver.installInbound(sa) : a.driver.installOutbound(sa))),
  );
  const took = performance.now() - start;
  await Promise.all(sas.map((sa) => a.driver.remove(sa)));
  return (took * 1000) / sas.length;
}

/** @returns Nanoseconds of both engines' processor time for a packet, in the kernel too, with traffic over so many pods. */
async function packetCost(lab: EngineLab, pods: number): Promise<number> {
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
