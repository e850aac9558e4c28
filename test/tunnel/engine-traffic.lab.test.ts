import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { run } from '../../src/kernel/command.ts';
import type { InstalledSa, TrafficSelector } from '../../src/tunnel/driver.ts';
import { EngineLab, type EngineLabOptions } from '../support/engine-lab.ts';

const tcpStream = fileURLToPath(new URL('../support/tcp-stream.ts', import.meta.url));
const udpEcho = fileURLToPath(new URL('../support/udp-echo.ts', import.meta.url));
const asanBinary = fileURLToPath(new URL('../../build/native-asan/myelin-engine', import.meta.url));

/** @returns How many of the echo requests were answered. */
async function ping(netns: string, address: string, options: { count: number; interval?: number; size?: number }) {
  const args = ['-c', `${options.count}`, '-i', `${options.interval ?? 0.01}`, '-W', '2', '-q'];
  if (options.size !== undefined) args.push('-s', `${options.size}`);
  const { stdout } = await run('ping', [...args, address], { netns });
  return Number(/(\d+) received/.exec(stdout)?.[1]);
}

/** A program of test/support that serves in a namespace: the lines it prints, and its end. */
async function serve(netns: string, program: string, port: string) {
  const args = [`--net=${netns}`, process.execPath, '--disable-warning=ExperimentalWarning', program, 'serve', port];
  const child = spawn('nsenter', args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  assert.equal((await lines.next()).value, 'listening');
  return { lines, close: () => child.kill() };
}

/** Sends `mebibytes` over one TCP connection and checks that they arrive as they were sent. */
async function transfer(from: string, to: string, address: string, mebibytes: number): Promise<void> {
  const port = '7001';
  const server = await serve(to, tcpStream, port);
  try {
    const sent = await run(process.execPath, [tcpStream, 'send', address, port, `${mebibytes}`], { netns: from });
    assert.equal((await server.lines.next()).value, sent.stdout.trim());
  } finally {
    server.close();
  }
}

/** @returns How many of `count` datagrams, `rate` a second, were answered. */
async function echo(from: string, to: string, address: string, count: number, rate: number): Promise<number> {
  const port = '7002';
  const server = await serve(to, udpEcho, port);
  try {
    const args = [udpEcho, 'send', address, port, `${count}`, `${rate}`];
    return Number((await run(process.execPath, args, { netns: from })).stdout);
  } finally {
    server.close();
  }
}

function pairsOf(lab: EngineLab, direction: 0 | 1): string[] {
  return lab.selectors(lab.nodes[direction]).map((pair) => `${pair.local} ${pair.remote}`);
}

const variants: { name: string; options: EngineLabOptions; mebibytes: number }[] = [
  { name: 'the fastest AES-GCM', options: {}, mebibytes: 64 },
  { name: 'libcrypto at one end, over IPv6', options: { aead: 'libcrypto', underlay: 6 }, mebibytes: 32 },
  { name: 'jumbo frames', options: { mtu: 9000 }, mebibytes: 32 },
  { name: 'two threads each way', options: { threads: 2 }, mebibytes: 32 },
  { name: 'eight threads each way', options: { threads: 8 }, mebibytes: 16 },
  { name: 'under sanitizers', options: { binary: asanBinary }, mebibytes: 16 },
  { name: 'under sanitizers, two threads each way', options: { binary: asanBinary, threads: 2 }, mebibytes: 8 },
];

for (const { name, options, mebibytes } of variants)
  describe(`pod to pod through two engines: ${name}`, () => {
    let lab: EngineLab;
    before(async () => {
      lab = await EngineLab.open(options);
    });
    after(() => lab.close());

    test('first packets are held, asked for once, and arrive', async () => {
      const [a, b] = lab.nodes;
      const asked: TrafficSelector[][] = [[], []];
      for (const [i, node] of lab.nodes.entries()) node.driver.on('acquire', (pair) => asked[i]?.push(pair));
      const pings = b.addresses.map((address) => ping(a.pod, address, { count: 10, interval: 0.02 }));
      // Two pairs of each direction: a tunnel that is up one way makes the other side ask.
      while ((asked[0]?.length ?? 0) < 2) await sleep(20);
      assert.equal((await a.driver.statistics()).sealed.packets, 0);
      await sleep(300);
      await lab.connect();
      assert.deepEqual(await Promise.all(pings), [10, 10]);
      const pairs = (asked[0] ?? []).map((pair) => `${pair.local} ${pair.remote}`);
      assert.deepEqual(pairs.sort(), pairsOf(lab, 0).sort());
      assert.deepEqual((await a.driver.statistics()).held, { pairs: 0, packets: 0, bytes: 0 });
    });

    test('long TCP transfers arrive byte for byte, both families, both ways', async () => {
      const [a, b] = lab.nodes;
      for (const family of [0, 1] as const) {
        await transfer(a.pod, b.pod, b.addresses[family], mebibytes);
        await transfer(b.pod, a.pod, a.addresses[family], mebibytes / 2);
      }
      const { details, drops } = await b.driver.statistics();
      assert.ok((details.tun_segments_coalesced ?? 0) > 1000, 'segments travelled together');
      delete (drops as Record<string, number>).TUN_NOT_UNICAST;
      assert.deepEqual(drops, {});
    });

    test('fragments and packets of every size up to the largest', async () => {
      const [a, b] = lab.nodes;
      for (const family of [0, 1] as const)
        for (const size of [0, 1, 2, 3, 4, 1000, 1376, 4000, 20_000, 60_000])
          assert.equal(await ping(a.pod, b.addresses[family], { count: 1, size }), 1, `${size} bytes`);
    });
  });

/** Whether everything that was sent under these keys has been received: nothing of it is under way any more. */
async function arrived(lab: EngineLab, sas: readonly InstalledSa[]): Promise<boolean> {
  const now = (await Promise.all(lab.nodes.map((node) => node.driver.list()))).flat();
  const packets = (direction: 'in' | 'out', spi: number) =>
    now.find((sa) => sa.direction === direction && sa.spi === spi)?.statistics.packets;
  return sas.every(({ spi }) => packets('in', spi) === packets('out', spi));
}

test('keys change under traffic without a packet lost', async () => {
  const lab = await EngineLab.open();
  try {
    const [a, b] = lab.nodes;
    await lab.connect(0x1000);
    const count = 4000;
    const both = Promise.all([
      echo(a.pod, b.pod, b.addresses[0], count, 1000),
      echo(b.pod, a.pod, a.addresses[1], count, 1000),
    ]);
    for (let round = 1; round <= 20; round++) {
      const old = await Promise.all(lab.nodes.map((node) => node.driver.list()));
      await lab.connect(0x1000 + round * 16);
      for (let tries = 0; !(await arrived(lab, old.flat())); tries++) assert.ok(tries < 5000, 'something never came');
      for (const [i, node] of lab.nodes.entries()) for (const sa of old[i] ?? []) await node.driver.remove(sa);
    }
    assert.deepEqual(await both, [count, count]);
    for (const node of lab.nodes) assert.equal((await node.driver.list()).length, 2);
  } finally {
    await lab.close();
  }
});

test('an engine that does not run for a while loses nothing of what comes meanwhile', async () => {
  const lab = await EngineLab.open();
  try {
    const [a, b] = lab.nodes;
    await lab.connect();
    const both = Promise.all([
      echo(a.pod, b.pod, b.addresses[0], 3000, 1000),
      echo(b.pod, a.pod, a.addresses[1], 3000, 1000),
    ]);
    for (let pause = 0; pause < 6; pause++) {
      await sleep(300);
      process.kill(b.enginePid, 'SIGSTOP');
      await sleep(150);
      process.kill(b.enginePid, 'SIGCONT');
    }
    assert.deepEqual(await both, [3000, 3000]);
  } finally {
    await lab.close();
  }
});
