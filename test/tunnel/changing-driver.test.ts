import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { pino } from 'pino';
import { parseIp } from '../../src/model/address.ts';
import { ChangingDriver } from '../../src/tunnel/changing-driver.ts';
import type { InboundSa, OutboundSa, TrafficSelector } from '../../src/tunnel/driver.ts';
import { TunnelError } from '../../src/tunnel/driver.ts';
import { MemoryDriver, Underlay } from './memory-driver.ts';

const at = (last: number) => ({ address: parseIp(`192.0.2.${last}`), port: 4500 });
const pair: TrafficSelector = { local: parseIp('10.1.0.1'), remote: parseIp('10.2.0.1') };
const shared = () => ({
  selectors: [pair],
  peer: at(9),
  key: randomBytes(32),
  salt: randomBytes(4),
  lifetimes: {},
  note: '',
});
const inbound = (spi: number): InboundSa => ({ direction: 'in', spi, ...shared() });
const outbound = (spi: number): OutboundSa => ({ direction: 'out', spi, ...shared() });

async function changing() {
  const [to, from] = [new MemoryDriver(at(1), new Underlay()), new MemoryDriver(at(2), new Underlay())];
  await from.installInbound(inbound(500));
  await from.installOutbound(outbound(501));
  const opened: (readonly TrafficSelector[])[] = [];
  const both = new ChangingDriver(to, from, {
    log: pino({ level: 'silent' }),
    onOutbound: async (pairs) => void opened.push(pairs),
  });
  return { to, from, both, opened };
}

test('what is new goes to the one driver; what the other has is listed as leaving, and removed where it is', async () => {
  const { to, from, both, opened } = await changing();
  try {
    assert.deepEqual(
      (await both.list()).map(({ spi, leaving }) => [spi, leaving]),
      [
        [500, true],
        [501, true],
      ],
    );
    await both.installInbound(inbound(600));
    assert.deepEqual(opened, []);
    await both.installOutbound(outbound(601));
    assert.deepEqual(opened, [[pair]]);
    assert.deepEqual(
      (await to.list()).map(({ spi }) => spi),
      [600, 601],
    );
    assert.deepEqual(
      (await both.list()).map(({ spi, leaving = false }) => [spi, leaving]),
      [
        [500, true],
        [501, true],
        [600, false],
        [601, false],
      ],
    );
    await both.movePeer({ direction: 'out', spi: 501, peer: at(9) }, at(10));
    await both.remove({ direction: 'out', spi: 501, peer: at(10) });
    await both.remove({ direction: 'out', spi: 601, peer: at(9) });
    assert.deepEqual([(await from.list()).length, (await to.list()).length], [1, 1]);
    await assert.rejects(
      both.remove({ direction: 'in', spi: 700, peer: at(9) }),
      (error) => error instanceof TunnelError && error.code === 'NoSuchSa',
    );
  } finally {
    await both.close();
  }
});

test('both say what becomes of keys; who waits for one is asked for once, by the new driver', async () => {
  const { to, from, both } = await changing();
  const said: string[] = [];
  both.on('acquire', () => said.push('acquire'));
  both.on('soft', ({ sa }) => said.push(`soft ${sa.spi}`));
  both.on('up', () => said.push('up'));
  try {
    from.reachLimit(pair, 'soft');
    to.emit('acquire', pair);
    from.emit('acquire', pair);
    from.crash();
    assert.deepEqual(said, ['soft 501', 'acquire', 'up']);
  } finally {
    await both.close();
  }
});

test('it is over when the other driver has nothing left, which then has no say any more', async () => {
  const { from, both } = await changing();
  const said: string[] = [];
  both.on('soft', () => said.push('soft'));
  await both.remove({ direction: 'in', spi: 500, peer: at(9) });
  await both.remove({ direction: 'out', spi: 501, peer: at(9) });
  // The timer that looks does not keep a process alive.
  const awake = setInterval(() => {}, 1000);
  await both.over;
  clearInterval(awake);
  await from.installOutbound(outbound(501));
  from.reachLimit(pair, 'soft');
  assert.deepEqual(said, []);
  assert.deepEqual(await both.list(), []);
  await assert.rejects(both.remove({ direction: 'out', spi: 501, peer: at(9) }), { code: 'NoSuchSa' });
  await both.close();
});
