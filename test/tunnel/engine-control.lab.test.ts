import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, closeSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { pino } from 'pino';
import { z } from 'zod';
import { run } from '../../src/kernel/command.ts';
import { KernelError } from '../../src/kernel/error.ts';
import { ip } from '../../src/kernel/ip.ts';
import { openUdp, sendDescriptor } from '../../src/kernel/sockets.ts';
import { parseIp } from '../../src/model/address.ts';
import { type Expiry, type TrafficSelector, TunnelError, type TunnelErrorCode } from '../../src/tunnel/driver.ts';
import { EngineDriver } from '../../src/tunnel/engine/engine-driver.ts';
import { EngineLab, isEngine, testLog } from '../support/engine-lab.ts';

const ifindex = z.tuple([z.object({ ifindex: z.number() })]);

function refusal(code: TunnelErrorCode) {
  return (error: unknown) => error instanceof TunnelError && error.code === code;
}

describe('the agent’s connection to an engine', () => {
  let lab: EngineLab;
  before(async () => {
    lab = await EngineLab.open();
    await lab.connect();
  });
  after(() => lab.close());

  const reachable = async (count = 3) => {
    const [a, b] = lab.nodes;
    const { stdout } = await run('ping', ['-c', `${count}`, '-i', '0.05', b.addresses[0]], { netns: a.pod });
    return Number(/(\d+) received/.exec(stdout)?.[1]) === count;
  };

  test('an agent that restarts finds every SA with its note, and no key; traffic did not notice', async () => {
    const [a] = lab.nodes;
    const before = await a.driver.list();
    const { engine } = a.driver;
    await a.driver.close();
    assert.ok(await reachable());
    await lab.reconnect(a);
    assert.equal(a.driver.engine?.instance, engine?.instance);
    const after = await a.driver.list();
    assert.deepEqual(
      after.map(({ direction, spi, peer, selectors, note }) => ({ direction, spi, peer, selectors, note })),
      before.map(({ direction, spi, peer, selectors, note }) => ({ direction, spi, peer, selectors, note })),
    );
    assert.deepEqual(after.map((sa) => sa.note).sort(), ['in 4097', 'out 4096']);
    for (const [i, sa] of after.entries())
      assert.ok(
        sa.statistics.packets >= (before[i]?.statistics.packets ?? 0) + 3,
        'counted while nobody was connected',
      );
  });

  test('a listener that fails does not cost the connection', async () => {
    const [a] = lab.nodes;
    const log: string[] = [];
    const driver = new EngineDriver(
      { socketPath: a.socket },
      { log: pino({ level: 'error' }, { write: (line: string) => void log.push(line) }) },
    );
    await a.driver.close();
    await driver.open();
    let lost = 0;
    driver.on('down', () => lost++);
    const told = Promise.withResolvers<TrafficSelector>();
    driver.on('acquire', (pair) => {
      told.resolve(pair);
      throw new TypeError('a listener’s own mistake');
    });
    const nobody =
      lab
        .selectors(a)
        .map(({ remote }) => remote)[0]
        ?.replace(/\.2$/, '.77') ?? '';
    await run('ping', ['-c', '1', '-W', '1', nobody], { netns: a.pod }).catch(() => undefined);
    await driver.fail(await told.promise);
    assert.ok((await driver.list()).length > 0);
    assert.equal(lost, 0);
    assert.match(log.join(''), /a listener’s own mistake/);
    await driver.close();
    await lab.reconnect(a);
  });

  test('a key is taken over: zeroed in the caller’s hands, installed once, never overwritten', async () => {
    const [a] = lab.nodes;
    const { outbound, inbound } = lab.makeSa(a, 0x9000);
    const again = { ...outbound, key: randomBytes(32), salt: randomBytes(4) };
    await a.driver.installOutbound(outbound);
    assert.deepEqual(outbound.key, Buffer.alloc(32));
    assert.deepEqual(outbound.salt, Buffer.alloc(4));
    await assert.rejects(a.driver.installOutbound(again), refusal('SaExists'));
    assert.deepEqual(again.key, Buffer.alloc(32));
    await a.driver.remove(outbound);
    await assert.rejects(a.driver.remove(outbound), refusal('NoSuchSa'));
    await assert.rejects(a.driver.installInbound({ ...inbound, spi: 255 }), refusal('InvalidSa'));
    await assert.rejects(a.driver.installInbound({ ...inbound, note: 'x'.repeat(1025) }), refusal('InvalidSa'));
    const mixed = { local: parseIp('10.0.0.1'), remote: parseIp('fd00::1') };
    await assert.rejects(
      a.driver.installInbound({ ...inbound, key: randomBytes(32), selectors: [mixed] }),
      refusal('InvalidSa'),
    );
  });

  test('thousands of SAs are installed, listed in pages, and removed', async () => {
    const [a] = lab.nodes;
    const count = 2000;
    const sas = Array.from({ length: count }, (_, i) => lab.makeSa(a, 0x10_0000 + i).inbound);
    await Promise.all(sas.map((sa) => a.driver.installInbound({ ...sa, note: `${'n'.repeat(1000)} ${sa.spi}` })));
    const listed = (await a.driver.list()).filter((sa) => sa.spi >= 0x10_0000);
    assert.deepEqual(
      listed.map((sa) => sa.spi),
      sas.map((sa) => sa.spi),
    );
    assert.ok(listed.every((sa) => sa.note === `${'n'.repeat(1000)} ${sa.spi}`));
    assert.equal((await a.driver.statistics()).sas.in, count + 1);
    await Promise.all(sas.map((sa) => a.driver.remove(sa)));
    assert.equal((await a.driver.statistics()).sas.in, 1);
  });

  test('the newest connection wins', async () => {
    const [a] = lab.nodes;
    const old = a.driver;
    const down = once(old, 'down');
    const newer = new EngineDriver({ socketPath: a.socket, retryMs: 60_000 }, { log: testLog });
    await newer.open();
    await down;
    assert.equal((await newer.list()).length, 2);
    await newer.close();
    await old.close();
    await lab.reconnect(a);
  });

  test('garbage ends that connection and nothing else', async () => {
    const [a] = lab.nodes;
    await a.driver.close();
    for (let i = 0; i < 50; i++) {
      const socket = connect(a.socket);
      socket.on('error', () => undefined);
      socket.resume();
      const closed = once(socket, 'close');
      // Half of it well framed, so that it gets as far as the requests.
      const body = randomBytes(1 + (i % 300));
      const length = Buffer.alloc(4);
      length.writeUInt32LE(body.length);
      if (body[0] !== undefined) body[0] = i % 12;
      socket.write(i % 2 === 0 ? Buffer.concat([length, body]) : randomBytes(64).fill(0xff, 0, 4));
      socket.end();
      await closed;
    }
    await lab.reconnect(a);
    assert.equal((await a.driver.list()).length, 2);
    assert.ok(await reachable());
  });

  test('another user is not let in, even where the socket’s file would', async () => {
    const [a] = lab.nodes;
    chmodSync(lab.directory, 0o755);
    chmodSync(a.socket, 0o666);
    const script = `const s = require('node:net').connect(${JSON.stringify(a.socket)});
      let n = 0; s.on('data', (d) => (n += d.length)); s.on('close', () => console.log(n)); s.on('error', () => {});`;
    const { stdout } = await run('setpriv', ['--reuid=65534', '--clear-groups', process.execPath, '-e', script]);
    assert.equal(stdout.trim(), '0', 'closed without a greeting');
    assert.equal((await a.driver.list()).length, 2, 'and the agent kept its connection');
  });

  test('acquires that nobody heard are repeated to the next agent', async () => {
    const [a, b] = lab.nodes;
    const saved = await a.driver.list();
    const out = saved.find((sa) => sa.direction === 'out');
    assert.ok(out);
    await a.driver.remove(out);
    await a.driver.close();
    await run('ping', ['-c', '1', '-W', '1', b.addresses[0]], { netns: a.pod }).catch(() => undefined);
    a.driver = new EngineDriver({ socketPath: a.socket }, { log: testLog });
    const acquired = once(a.driver, 'acquire');
    await a.driver.open();
    const [pair] = lab.selectors(a);
    assert.ok(pair);
    assert.deepEqual(await acquired, [pair]);
    const before = await a.driver.statistics();
    assert.equal(before.held.packets, 1);
    await a.driver.fail(pair);
    const { held, drops } = await a.driver.statistics();
    assert.deepEqual([held.packets, drops.HOLD_FAILED], [0, (before.drops.HOLD_FAILED ?? 0) + 1]);
    const { outbound, inbound } = lab.makeSa(a, 0x9100);
    await b.driver.installInbound(inbound);
    await a.driver.installOutbound(outbound);
    assert.ok(await reachable());
  });

  test('limits are reported, and packets over the hard one wait for the successor', async () => {
    const [a, b] = lab.nodes;
    for (const sa of await a.driver.list()) if (sa.direction === 'out') await a.driver.remove(sa);
    const first = lab.makeSa(a, 0x9200, { lifetimes: { softPackets: 3, hardPackets: 6 } });
    await b.driver.installInbound({ ...first.inbound, lifetimes: {} });
    const events: [string, Expiry][] = [];
    a.driver.on('soft', (expiry) => events.push(['soft', expiry]));
    a.driver.on('hard', (expiry) => events.push(['hard', expiry]));
    await a.driver.installOutbound(first.outbound);
    const acquired = once(a.driver, 'acquire');
    const pings = reachable(10);
    await acquired;
    assert.deepEqual(
      events.map(([when, { sa, cause }]) => [when, sa.spi, cause]),
      [
        ['soft', 0x9200, 'packets'],
        ['hard', 0x9200, 'packets'],
      ],
    );
    const old = (await a.driver.list()).find((sa) => sa.spi === 0x9200);
    assert.deepEqual([old?.expired, old?.statistics.packets], [true, 6]);
    const second = lab.makeSa(a, 0x9201);
    await b.driver.installInbound(second.inbound);
    await a.driver.installOutbound(second.outbound);
    assert.ok(await pings, 'no ping was lost');
  });

  test('a socket that it is given stays open without the giver, until it is told otherwise or ends', async () => {
    const [a] = lab.nodes;
    const options = { address: parseIp('127.0.0.1'), port: 0 };
    const { fd, port } = openUdp(options);
    const isTaken = () => {
      try {
        closeSync(openUdp({ ...options, port }).fd);
        return false;
      } catch (error) {
        if (error instanceof KernelError && error.errno === 'EADDRINUSE') return true;
        throw error;
      }
    };
    await a.driver.keepSocket(fd);
    closeSync(fd);
    assert.equal(a.driver.engine?.kernelEsp, true);
    await lab.reconnect(a);
    assert.deepEqual([a.driver.engine?.kernelEsp, isTaken()], [true, true]);
    await a.driver.keepSocket(undefined);
    assert.deepEqual([a.driver.engine?.kernelEsp, isTaken()], [false, false]);
    // One that is given without being asked to keep it is not kept.
    const other = openUdp({ ...options, port });
    const stranger = connect(a.socket);
    await once(stranger, 'data');
    sendDescriptor(stranger, Buffer.from([1]), other.fd);
    closeSync(other.fd);
    await lab.reconnect(a);
    assert.equal(isTaken(), false);
    stranger.destroy();
  });

  test('a peer that moves is followed', async () => {
    const [a, b] = lab.nodes;
    const { outbound, inbound } = lab.makeSa(a, 0x9300);
    await b.driver.installInbound(inbound);
    const wrong = { address: parseIp('172.31.254.99'), port: 4500 };
    await a.driver.installOutbound({ ...outbound, peer: wrong });
    await assert.rejects(run('ping', ['-c', '1', '-W', '1', b.addresses[0]], { netns: a.pod }));
    await a.driver.movePeer({ ...outbound, peer: wrong }, outbound.peer);
    assert.ok(await reachable());
    await assert.rejects(a.driver.movePeer({ ...outbound, peer: wrong }, outbound.peer), refusal('NoSuchSa'));
  });

  test('an engine that is killed is missed, and its successor starts empty on the same device', async () => {
    const [a] = lab.nodes;
    const device = () => ip(['link', 'show', 'dev', 'myelin0'], { netns: a.netns });
    const before = ifindex.parse(await device());
    const { engine } = a.driver;
    const down = once(a.driver, 'down');
    assert.ok(await isEngine(a.enginePid));
    process.kill(a.enginePid, 'SIGKILL');
    await down;
    await assert.rejects(a.driver.list(), refusal('DriverDown'));
    const up = once(a.driver, 'up');
    await lab.startEngine(a);
    await up;
    assert.notEqual(a.driver.engine?.instance, engine?.instance);
    assert.deepEqual(await a.driver.list(), []);
    assert.deepEqual(ifindex.parse(await device()), before);
  });

  test('shutdown ends it', async () => {
    const [a] = lab.nodes;
    await a.driver.shutdown();
    for (let i = 0; i < 100 && (await isEngine(a.enginePid)); i++)
      await new Promise((resolve) => setTimeout(resolve, 20));
    await assert.rejects(readFile(`/proc/${a.enginePid}/status`));
    a.enginePid = 0;
  });
});

test('a driver without an engine says so', async () => {
  const driver = new EngineDriver({ socketPath: '/run/myelin-no-such-engine.sock' }, { log: testLog });
  await assert.rejects(driver.open(100), refusal('DriverDown'));
  await assert.rejects(driver.list(), refusal('DriverDown'));
});
