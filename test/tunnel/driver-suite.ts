import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseIp } from '../../src/model/address.ts';
import {
  type Expiry,
  type InboundSa,
  type InstalledSa,
  type OutboundSa,
  type TrafficSelector,
  TunnelError,
  type TunnelErrorCode,
} from '../../src/tunnel/driver.ts';
import { type DriverKind, DriverLab, type DriverNode } from '../support/driver-lab.ts';

/**
 * What driver.ts promises of every driver, held to on two nodes with the real datapath.
 * @param options.signals How an agent ends: kindly, or not. Each takes an agent's start.
 */
export function driverSuite(
  kinds: readonly [DriverKind, DriverKind],
  { signals = [undefined, 'SIGKILL'] }: { signals?: readonly (undefined | 'SIGKILL')[] } = {},
): void {
  describe(`drivers: ${kinds.join(' and ')}`, () => {
    let lab: DriverLab;
    let a: DriverNode;
    let b: DriverNode;
    // Such as a node of either driver takes.
    let spi = 0x2000_1000;
    const next = () => (spi += 0x10);

    before(async () => {
      lab = await DriverLab.open(kinds);
      [a, b] = lab.nodes;
    });
    after(() => lab?.close());
    afterEach(async () => {
      for (const node of lab.nodes) node.removeAllListeners();
      await lab.clear();
    });

    test('packets wait for a key, which is asked for once; with it they go, and none is lost', async () => {
      const asked: TrafficSelector[] = [];
      a.on('acquire', (pair) => asked.push(pair));
      const [back, forward] = [lab.makeSa(b, next()), lab.makeSa(a, next())];
      for (const { to, inbound } of [back, forward]) await to.installInbound(inbound);
      await b.installOutbound(back.outbound);
      const pings = [lab.ping(a, b.addresses[0]), lab.ping(a, b.addresses[1])];
      await until(async () => (await a.statistics()).held.packets >= 4);
      assert.deepEqual(asked.map(text).sort(), lab.selectors(a).map(text).sort());
      await a.installOutbound(forward.outbound);
      assert.deepEqual(await Promise.all(pings), [3, 3]);
      const { held } = await a.statistics();
      assert.deepEqual(held, { pairs: 0, packets: 0, bytes: 0 });
      assert.equal(asked.length, 2);
    });

    test('who is refused a tunnel has its packets dropped, and the next one asks again', async () => {
      const [pair] = lab.selectors(a);
      assert.ok(pair);
      for (let i = 0; i < 2; i++) {
        const acquired = once(a, 'acquire');
        const ping = lab.ping(a, pair.remote, { count: 1, waitS: 1 });
        assert.deepEqual(await acquired, [pair]);
        const before = (await a.statistics()).drops.HOLD_FAILED ?? 0;
        await a.fail(pair);
        assert.equal((await a.statistics()).held.packets, 0);
        assert.equal(((await a.statistics()).drops.HOLD_FAILED ?? 0) - before, 1);
        assert.equal(await ping, 0);
      }
    });

    test('nothing comes in by an association that is not proven', async () => {
      const [forward, back] = [lab.makeSa(a, next()), lab.makeSa(b, next())];
      await a.installInbound(back.inbound);
      await b.installInbound(forward.inbound, false);
      await a.installOutbound(forward.outbound);
      await b.installOutbound(back.outbound);
      const before = await b.dropped('TUNNEL_SELECTOR');
      assert.equal(await lab.ping(a, b.addresses[0], { waitS: 1 }), 0);
      assert.equal((await b.dropped('TUNNEL_SELECTOR')) - before, 3);
    });

    test('what was installed is listed with all that was said of it, and with what it has carried', async () => {
      const lifetimes = { softBytes: 1e9, hardBytes: 2e9, softPackets: 1e6, hardPackets: 2 ** 40 };
      const [forward, back] = await lab.connect(next(), lifetimes);
      assert.ok(forward && back);
      assert.equal(await lab.ping(a, b.addresses[0], { size: 100 }), 3);
      assert.equal(await lab.ping(a, b.addresses[1], { size: 100 }), 3);
      const [out, into] = [only(await a.list(), 'out'), only(await a.list(), 'in')];
      for (const [found, sa] of [
        [out, forward.outbound],
        [into, back.inbound],
      ] as const) {
        const { statistics, replayWindow, ...rest } = found;
        const { key: _key, salt: _salt, ...said } = sa;
        assert.deepEqual(rest, { ...said, expired: false });
        assert.equal(replayWindow, sa.direction === 'in' ? 4096 : 0);
        assert.deepEqual(
          { ...statistics, idleMs: 0 },
          {
            packets: 6,
            bytes: 3 * (20 + 8 + 100) + 3 * (40 + 8 + 100),
            sequence: 6,
            drops: {},
            idleMs: 0,
          },
        );
        assert.ok((statistics.idleMs ?? -1) >= 0 && (statistics.idleMs ?? 1e9) < 60_000);
      }
      const { sas, sealed, opened } = await a.statistics();
      assert.deepEqual(sas, { in: 1, out: 1 });
      assert.ok(sealed.packets >= 6 && opened.packets >= 6);
      await a.remove(out);
      assert.deepEqual((await a.statistics()).sealed, sealed, 'what is gone has been carried all the same');
    });

    test('a key is taken over, zeroed and installed once; what makes no sense is refused and zeroed too', async () => {
      const { outbound, inbound } = lab.makeSa(a, next());
      const fresh = <T extends InboundSa | OutboundSa>(sa: T, change: Partial<T> = {}): T => ({
        ...sa,
        key: Buffer.alloc(32, 7),
        salt: Buffer.alloc(4, 7),
        ...change,
      });
      assert.ok(await a.installOutbound(outbound));
      assert.ok(await b.installInbound(inbound));
      await assert.rejects(a.installOutbound(fresh(outbound)), refusal('SaExists'));
      await assert.rejects(b.installInbound(fresh(inbound)), refusal('SaExists'));
      const other = next();
      const mixed = { local: parseIp('10.0.0.1'), remote: parseIp('fd00::1') };
      const [pair] = inbound.selectors;
      assert.ok(pair);
      for (const change of [
        { spi: 255 },
        { note: 'é'.repeat(513) },
        { selectors: [] },
        { selectors: [mixed] },
        { selectors: [pair, pair] },
        { peer: { address: a.underlay, port: 0 } },
        { peer: { address: parseIp('fd00::1'), port: 4500 } },
        { replayWindow: 65_536 },
        { key: Buffer.alloc(31, 7) },
        { salt: Buffer.alloc(5, 7) },
      ]) {
        const sa = fresh(inbound, { spi: other, ...change });
        await assert.rejects(b.installInbound(sa), refusal('InvalidSa'), JSON.stringify(change));
      }
      assert.deepEqual(
        (await b.list()).map(({ note }) => note),
        [inbound.note],
      );
      await b.installInbound(fresh(inbound, { spi: other, note: 'é'.repeat(512), replayWindow: 1000 }));
      assert.equal(only(await b.list(), 'in', other).replayWindow, 1024);
    });

    test('the newest sends; without it the one before; without any, packets wait again', async () => {
      const [first, back] = await lab.connect(next());
      assert.ok(first && back);
      const second = lab.makeSa(a, next());
      await b.installInbound(second.inbound);
      await a.installOutbound(second.outbound);
      const carried = async () => {
        const list = await a.list();
        return [first, second].map(({ outbound }) => list.find((sa) => sa.spi === outbound.spi)?.statistics.packets);
      };
      assert.equal(await lab.ping(a, b.addresses[0]), 3);
      assert.deepEqual(await carried(), [0, 3]);
      await a.remove(second.outbound);
      assert.equal(await lab.ping(a, b.addresses[0]), 3);
      assert.deepEqual(await carried(), [3, undefined]);
      await a.remove(first.outbound);
      const acquired = once(a, 'acquire');
      assert.equal(await lab.ping(a, b.addresses[0], { count: 1, waitS: 1 }), 0);
      assert.deepEqual(await acquired, [lab.selectors(a)[0]]);
    });

    test('what is removed is gone: its packets are unknown to the receiver, who says so', async () => {
      const [forward] = await lab.connect(next());
      assert.ok(forward);
      assert.equal(await lab.ping(a, b.addresses[0]), 3);
      await b.remove(forward.inbound);
      await assert.rejects(b.remove(forward.inbound), refusal('NoSuchSa'));
      const reports: unknown[] = [];
      b.on('unknownSpi', (report) => reports.push(report));
      const pings = lab.ping(a, b.addresses[0], { count: 15, intervalS: 0.2, waitS: 1 });
      await until(async () => reports.length > 0);
      assert.deepEqual(reports[0], { spi: forward.outbound.spi, from: { address: a.underlay, port: 4500 } });
      assert.equal(await pings, 0);
      assert.ok(((await b.statistics()).drops.UNKNOWN_SPI ?? 0) > 0);
    });

    test('a key is replaced under traffic without a packet lost', async () => {
      const [forward, back] = await lab.connect(next());
      assert.ok(forward && back);
      const flood = lab.ping(a, b.addresses[0], { count: 300, intervalS: 0.01 });
      let old = [forward, back];
      for (let i = 0; i < 4; i++) {
        await sleep(400);
        const fresh = await lab.connect(next());
        for (const { from, outbound } of old) await from.remove(outbound);
        await sleep(100);
        for (const { to, inbound } of old) await to.remove(inbound);
        old = fresh;
      }
      assert.equal(await flood, 300);
    });

    for (const limit of ['Packets', 'Bytes'] as const)
      test(`a soft limit of ${limit.toLowerCase()} is reported once; at the hard one packets wait for another key`, async () => {
        const [soft, hard] = limit === 'Packets' ? [5, 10] : [5 * 84, 10 * 84];
        const lifetimes = { [`soft${limit}`]: soft, [`hard${limit}`]: hard };
        const [forward, back] = [lab.makeSa(a, next(), { lifetimes }), lab.makeSa(b, next())];
        for (const { to, inbound } of [back, { ...forward, inbound: { ...forward.inbound, lifetimes: {} } }])
          await to.installInbound(inbound);
        for (const { from, outbound } of [back, forward]) await from.installOutbound(outbound);
        const said: [string, Expiry][] = [];
        a.on('soft', (expiry) => said.push(['soft', expiry])).on('hard', (expiry) => said.push(['hard', expiry]));
        assert.equal(await lab.ping(a, b.addresses[0], { count: 7 }), 7);
        await until(async () => said.length > 0);
        const asked = once(a, 'acquire');
        // The limit may strike the packet that reaches it, or the one behind.
        const answered = await lab.ping(a, b.addresses[0], { count: 5, intervalS: 0.3, waitS: 1 });
        assert.ok(answered === 2 || answered === 3, `${answered} answered`);
        await asked;
        assert.deepEqual(
          said.map(([kind, { sa, cause }]) => [kind, sa.direction, sa.spi, cause]),
          [
            ['soft', 'out', forward.outbound.spi, limit.toLowerCase()],
            ['hard', 'out', forward.outbound.spi, limit.toLowerCase()],
          ],
        );
        assert.equal(only(await a.list(), 'out').expired, true);
        const successor = lab.makeSa(a, next());
        await b.installInbound(successor.inbound);
        const waiting = lab.ping(a, b.addresses[0], { count: 1 });
        await until(async () => (await a.statistics()).held.packets > 0);
        await a.installOutbound(successor.outbound);
        assert.equal(await waiting, 1);
        await a.remove(forward.outbound);
        await assert.rejects(a.remove(forward.outbound), refusal('NoSuchSa'));
      });

    test('an agent’s end changes nothing for packets, and the next agent finds everything', async () => {
      await lab.connect(next());
      assert.equal(await lab.ping(a, b.addresses[0]), 3);
      for (const signal of signals) {
        const before = await a.list();
        const flood = lab.ping(a, b.addresses[0], { count: 30, intervalS: 0.1 });
        await a.stop(signal);
        await a.start();
        const found = await a.list();
        assert.deepEqual(found.map(withoutStatistics), before.map(withoutStatistics));
        assert.equal(await flood, 30);
        assert.equal(await lab.ping(a, b.addresses[1]), 3);
      }
      const out = only(await a.list(), 'out');
      const replacement = lab.makeSa(a, next());
      await b.installInbound(replacement.inbound);
      await a.installOutbound(replacement.outbound);
      await a.remove(out);
      assert.equal(await lab.ping(a, b.addresses[0]), 3, 'and goes on from there');
    });
  });
}

function only(sas: readonly InstalledSa[], direction: 'in' | 'out', spi?: number): InstalledSa {
  const found = sas.filter((sa) => sa.direction === direction && (spi === undefined || sa.spi === spi));
  const [sa] = found;
  assert.ok(sa !== undefined && found.length === 1, `${found.length} associations ${direction}`);
  return sa;
}

function withoutStatistics({ statistics: _, ...sa }: InstalledSa) {
  return sa;
}

function text({ local, remote }: TrafficSelector): string {
  return `${local} ${remote}`;
}

function refusal(code: TunnelErrorCode) {
  return (error: unknown) => {
    assert.ok(error instanceof TunnelError, String(error));
    assert.equal(error.code, code);
    return true;
  };
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 20_000; !(await holds()); await sleep(20))
    assert.ok(Date.now() < end, 'it did not come about');
}
