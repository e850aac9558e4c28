import type { XfrmStateInfo } from '../../kernel/xfrm-layout.ts';
import type { DriverStatistics, Expiry, InstalledSa, TunnelDropReason } from '../driver.ts';
import type { SaNote } from './notes.ts';

type Drops = Partial<Record<TunnelDropReason, number>>;
type Carried = Readonly<Record<'in' | 'out', { readonly packets: number; readonly bytes: number }>>;

/** What /proc/net/xfrm_stat calls what the engine drops too. The rest are details. */
const counted: Readonly<Record<string, TunnelDropReason>> = {
  XfrmInNoStates: 'UNKNOWN_SPI',
  XfrmInStateSeqError: 'REPLAYED',
  XfrmInStateProtoError: 'AUTHENTICATION',
  XfrmInStateExpired: 'EXPIRED_IN',
};

/** @param state Absent where the kernel has it no more. */
export function describe(note: SaNote, state?: XfrmStateInfo): InstalledSa {
  const { direction, spi, peer, selectors, lifetimes, replayWindow } = note;
  const drops = dropsOf([
    ['BEHIND_WINDOW', state?.windowFailures ?? 0],
    ['REPLAYED', state?.replayFailures ?? 0],
    ['AUTHENTICATION', state?.integrityFailures ?? 0],
  ]);
  return {
    direction,
    spi,
    peer,
    selectors,
    lifetimes,
    replayWindow,
    note: note.note,
    expired: false,
    statistics: {
      packets: state?.packets ?? 0,
      bytes: state?.bytes ?? 0,
      ...(state === undefined || state.usedAt === 0 ? {} : { idleMs: Math.max(0, Date.now() - state.usedAt * 1000) }),
      sequence: state?.sequence ?? 0,
      drops,
    },
  };
}

/** @returns Which of the limits the association has reached, undefined where none. */
export function exhausted(sa: InstalledSa, kind: 'soft' | 'hard'): Expiry['cause'] | undefined {
  const { softBytes, softPackets, hardBytes, hardPackets } = sa.lifetimes;
  const [bytes, packets] = kind === 'soft' ? [softBytes, softPackets] : [hardBytes, hardPackets];
  if (bytes !== undefined && sa.statistics.bytes >= bytes) return 'bytes';
  return packets !== undefined && sa.statistics.packets >= packets ? 'packets' : undefined;
}

/**
 * @param past What associations that are gone have carried.
 * @param holder Of whoever holds packets in the kernel's place.
 * @param counters Of the kernel.
 */
export function statisticsOf(
  sas: readonly InstalledSa[],
  past: Carried,
  holder: DriverStatistics,
  counters: Readonly<Record<string, number>>,
): DriverStatistics {
  const live = sas.filter(({ expired }) => !expired);
  const of = (direction: 'in' | 'out') => live.filter((sa) => sa.direction === direction);
  const total = (direction: 'in' | 'out') =>
    of(direction).reduce(
      (sum, { statistics }) => ({ packets: sum.packets + statistics.packets, bytes: sum.bytes + statistics.bytes }),
      past[direction],
    );
  const counts: [TunnelDropReason, number][] = [];
  const details: Record<string, number> = {};
  for (const [name, count] of Object.entries(counters)) {
    const reason = counted[name];
    if (reason !== undefined) counts.push([reason, count]);
    else if (count > 0) details[name] = count;
  }
  return {
    // Of the engine's own reasons the holder has only those of holding.
    drops: { ...holder.drops, ...dropsOf(counts) },
    sealed: total('out'),
    opened: total('in'),
    held: holder.held,
    sas: { in: of('in').length, out: of('out').length },
    details,
  };
}

/** @returns Sums by reason, of those above zero. */
function dropsOf(counts: readonly (readonly [TunnelDropReason, number])[]): Drops {
  const drops: Drops = {};
  for (const [reason, count] of counts) if (count > 0) drops[reason] = (drops[reason] ?? 0) + count;
  return drops;
}
