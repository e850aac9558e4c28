import type { EventEmitter } from 'node:events';
import type { Logger } from 'pino';
import type { DropReport, TunnelDriverEvents, TunnelDropReason } from '../tunnel/driver.ts';
import { tunnelDropReasons } from '../tunnel/driver.ts';

/** At most one line of a reason in this time, whatever arrives. */
const intervalMs = 10_000;

/** What happens without anybody's doing: multicast of the node's own kernel, dummy packets, tunnels that do not come up. */
const ordinary: ReadonlySet<TunnelDropReason> = new Set([
  'TUN_NOT_UNICAST',
  'DUMMY',
  'HOLD_PAIR_FULL',
  'HOLD_TOTAL_FULL',
  'HOLD_EXPIRED',
  'HOLD_FAILED',
]);

/**
 * Writes what the tunnel driver drops into the log: by reason, with the latest packet's SPI, sender and addresses as far as
 * they are known, and how many there were since the line before. The driver reports at a bounded rate by itself; the
 * counters of its statistics have what no line says.
 * @param now Milliseconds that only go up.
 */
export function logDrops(
  driver: EventEmitter<TunnelDriverEvents>,
  logger: Logger,
  now: () => number = () => performance.now(),
): void {
  const said = new Map<TunnelDropReason, { at: number; since: number }>();
  driver.on('drop', (report: DropReport) => {
    const { reason, count, spi, from, selector } = report;
    const last = said.get(reason);
    const since = (last?.since ?? 0) + count;
    if (last !== undefined && now() - last.at < intervalMs) {
      last.since = since;
      return;
    }
    said.set(reason, { at: now(), since: 0 });
    const level = ordinary.has(reason) ? 'debug' : 'warn';
    logger[level](
      { reason, packets: since, ...(spi === undefined ? {} : { spi }), from, selector },
      `tunnel packets dropped: ${tunnelDropReasons[reason].text}`,
    );
  });
}
