import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import { pino } from 'pino';
import { logDrops } from '../../src/agent/drop-log.ts';
import { parseIp } from '../../src/model/address.ts';
import type { DropReport, TunnelDriverEvents } from '../../src/tunnel/driver.ts';

function logged() {
  const lines: { level: number; reason: string; packets: number; msg: string; spi?: number }[] = [];
  const stream = new Writable({
    write(chunk, _, done) {
      lines.push(JSON.parse(String(chunk)));
      done();
    },
  });
  let time = 0;
  const driver = new EventEmitter<TunnelDriverEvents>();
  logDrops(driver, pino({ level: 'debug' }, stream), () => time);
  const drop = (reason: DropReport['reason'], count: number, spi?: number) =>
    driver.emit('drop', {
      reason,
      count,
      ...(spi === undefined ? {} : { spi, from: { address: parseIp('192.0.2.1'), port: 4500 } }),
    });
  return { lines, drop, pass: (ms: number) => (time += ms) };
}

test('dropped packets are logged by reason, with the count of those that no line was for', () => {
  const { lines, drop, pass } = logged();
  drop('REPLAYED', 1, 0x1234);
  for (let i = 0; i < 99; i++, pass(100)) drop('REPLAYED', 1000, 0x1234);
  drop('AUTHENTICATION', 5, 0x1234);
  assert.deepEqual(
    lines.map(({ reason, packets }) => [reason, packets]),
    [
      ['REPLAYED', 1],
      ['AUTHENTICATION', 5],
    ],
  );
  pass(1000);
  drop('REPLAYED', 7, 0x1235);
  assert.deepEqual([lines[2]?.packets, lines[2]?.spi], [99_007, 0x1235]);
  assert.match(lines[2]?.msg ?? '', /the sequence number was seen before/);
});

test('what nobody has to look into is not a warning', () => {
  const { lines, drop } = logged();
  drop('TUN_NOT_UNICAST', 1);
  drop('SELECTOR', 1);
  assert.deepEqual(
    lines.map(({ level, reason }) => [level, reason]),
    [
      [20, 'TUN_NOT_UNICAST'],
      [40, 'SELECTOR'],
    ],
  );
});

test('with the clock that agents have', () => {
  const lines: string[] = [];
  const driver = new EventEmitter<TunnelDriverEvents>();
  logDrops(driver, pino({ level: 'debug' }, { write: (line: string) => void lines.push(line) }));
  for (let i = 0; i < 3; i++) driver.emit('drop', { reason: 'SELECTOR', count: 1 });
  assert.equal(lines.length, 1);
});
