import { EventEmitter } from 'node:events';
import { KernelError } from '../../kernel/error.ts';
import { Xfrm, type XfrmStateInfo } from '../../kernel/xfrm.ts';
import { type IpAddress, parseIp } from '../../model/address.ts';
import { hostPrefix } from '../../model/prefix.ts';
import {
  type DriverStatistics,
  type InboundSa,
  type InstalledSa,
  type OutboundSa,
  type SaDirection,
  type SaId,
  type TrafficSelector,
  type TunnelDriver,
  type TunnelDriverEvents,
  TunnelError,
  type UnderlayAddress,
} from '../driver.ts';
import { SaNotes } from './notes.ts';

/** Who keeps the packets of pairs that have no outbound association yet; the kernel's own queue is one for all pairs. */
export interface PacketHolder extends EventEmitter<Pick<TunnelDriverEvents, 'acquire'>> {
  /** Puts what is held back into the datapath, in its order; it finds the association that is there now. */
  release(pair: TrafficSelector): Promise<void>;
  fail(pair: TrafficSelector): Promise<void>;
  statistics(): Promise<DriverStatistics>;
}

export interface XfrmDriverOptions {
  /** This node's underlay address and ESP port. */
  readonly underlay: UnderlayAddress;
  /** `if_id` of the xfrm device that carries all tunnels. */
  readonly interfaceId: number;
  readonly notesPath: string;
  /** Called before packets may use a pair's outbound association, and after they may no longer: steers the datapath. */
  readonly onPath: (pair: TrafficSelector, open: boolean) => void;
}

const defaultReplayWindow = 4096;
const pollMs = 1000;

/**
 * Tunnels in the kernel: ESP by xfrm, with whatever the kernel and the device do faster than a process can.
 *
 * A pair's newest outbound association is the one that the pair's xfrm policy names by request id; making it the SPI
 * makes every rekey a replacement of one policy, which the kernel does atomically.
 */
export class XfrmDriver extends EventEmitter<TunnelDriverEvents> implements TunnelDriver {
  readonly name = 'xfrm';
  readonly #options: XfrmDriverOptions;
  readonly #holder: PacketHolder;
  readonly #xfrm = new Xfrm();
  readonly #notes: SaNotes;
  /** Outbound associations of a pair, the newest last. */
  readonly #outbound = new Map<string, SaId[]>();
  readonly #warned = new Set<string>();
  readonly #poll: NodeJS.Timeout;

  constructor(options: XfrmDriverOptions, holder: PacketHolder) {
    super();
    this.#options = options;
    this.#holder = holder;
    this.#notes = new SaNotes(options.notesPath);
    for (const sa of this.#installed())
      if (sa.direction === 'out')
        for (const pair of sa.selectors)
          this.#outbound.set(pairKey(pair), [...(this.#outbound.get(pairKey(pair)) ?? []), sa]);
    holder.on('acquire', (pair) => this.emit('acquire', pair));
    this.#poll = setInterval(() => this.#checkLifetimes(), pollMs);
    this.#poll.unref();
    queueMicrotask(() => this.emit('up'));
  }

  async installInbound(sa: InboundSa): Promise<void> {
    this.#addState(sa, sa.replayWindow ?? defaultReplayWindow);
  }

  async installOutbound(sa: OutboundSa): Promise<void> {
    this.#addState(sa, defaultReplayWindow);
    for (const pair of sa.selectors) {
      const key = pairKey(pair);
      this.#outbound.set(key, [...(this.#outbound.get(key) ?? []), { direction: 'out', spi: sa.spi, peer: sa.peer }]);
      this.#steer(pair);
      this.#options.onPath(pair, true);
      await this.#holder.release(pair);
    }
  }

  async remove(id: SaId): Promise<void> {
    const key = saKey(id);
    const note = this.#notes.get(key);
    if (id.direction === 'out' && note !== undefined)
      for (const text of note.selectors) {
        const pair = { local: parseIp(text.local), remote: parseIp(text.remote) };
        const left = (this.#outbound.get(pairKey(pair)) ?? []).filter((other) => saKey(other) !== key);
        this.#outbound.set(pairKey(pair), left);
        if (left.length > 0) this.#steer(pair);
        else {
          this.#outbound.delete(pairKey(pair));
          this.#options.onPath(pair, false);
          this.#ignoreMissing(() => this.#xfrm.deletePolicy(this.#policySelector(pair)));
        }
      }
    this.#notes.delete(key);
    this.#warned.delete(key);
    try {
      this.#xfrm.deleteState({ ...this.#ends(id), spi: id.spi });
    } catch (cause) {
      throw this.#asTunnelError(cause, id);
    }
  }

  async movePeer(id: SaId, peer: UnderlayAddress): Promise<void> {
    // The kernel cannot change where a state sends to without its key: the pair is keyed anew instead.
    throw new TunnelError(
      'InvalidSa',
      `xfrm cannot move SPI ${id.spi} to ${peer.address}: the tunnel has to be rekeyed`,
    );
  }

  async list(): Promise<InstalledSa[]> {
    return this.#installed();
  }

  async statistics(): Promise<DriverStatistics> {
    const held = await this.#holder.statistics();
    const sas = this.#installed();
    const total = (direction: SaDirection) =>
      sas
        .filter((sa) => sa.direction === direction)
        .reduce(
          (sum, { statistics }) => ({ packets: sum.packets + statistics.packets, bytes: sum.bytes + statistics.bytes }),
          { packets: 0, bytes: 0 },
        );
    const drops: Partial<Record<'REPLAYED' | 'AUTHENTICATION', number>> = {};
    for (const { statistics } of sas)
      for (const reason of ['REPLAYED', 'AUTHENTICATION'] as const)
        drops[reason] = (drops[reason] ?? 0) + (statistics.drops[reason] ?? 0);
    return {
      drops: { ...held.drops, ...drops },
      sealed: total('out'),
      opened: total('in'),
      held: held.held,
      sas: {
        in: sas.filter((sa) => sa.direction === 'in').length,
        out: sas.filter((sa) => sa.direction === 'out').length,
      },
      details: {},
    };
  }

  async fail(pair: TrafficSelector): Promise<void> {
    await this.#holder.fail(pair);
  }

  async close(): Promise<void> {
    clearInterval(this.#poll);
    this.#xfrm.close();
  }

  #addState(sa: InboundSa | OutboundSa, replayWindow: number): void {
    const keyAndSalt = Buffer.concat([sa.key, sa.salt]);
    const { sourcePort, destinationPort } = this.#ports(sa);
    try {
      this.#xfrm.addState({
        ...this.#ends(sa),
        spi: sa.spi,
        requestId: sa.spi,
        interfaceId: this.#options.interfaceId,
        keyAndSalt,
        encapsulation: { sourcePort, destinationPort },
        replayWindow,
        ...(sa.lifetimes.hardBytes === undefined ? {} : { hardBytes: sa.lifetimes.hardBytes }),
        ...(sa.lifetimes.hardPackets === undefined ? {} : { hardPackets: sa.lifetimes.hardPackets }),
      });
    } catch (cause) {
      throw this.#asTunnelError(cause, sa);
    } finally {
      for (const secret of [keyAndSalt, sa.key, sa.salt]) secret.fill(0);
    }
    const { selectors, lifetimes, note, peer } = sa;
    this.#notes.set(saKey(sa), {
      selectors: [...selectors],
      port: peer.port,
      note,
      replayWindow,
      lifetimes: { ...lifetimes },
    });
  }

  /** Points the pair's policy at its newest association. */
  #steer(pair: TrafficSelector): void {
    const newest = this.#outbound.get(pairKey(pair))?.at(-1);
    if (newest === undefined) return;
    this.#xfrm.setPolicy({
      ...this.#policySelector(pair),
      priority: 1000,
      tunnel: { source: this.#options.underlay.address, destination: newest.peer.address, requestId: newest.spi },
    });
  }

  #policySelector(pair: TrafficSelector) {
    return {
      direction: 'out',
      source: hostPrefix(pair.local),
      destination: hostPrefix(pair.remote),
      interfaceId: this.#options.interfaceId,
    } as const;
  }

  #ends(sa: SaId): { source: IpAddress; destination: IpAddress } {
    const here = this.#options.underlay.address;
    return sa.direction === 'in'
      ? { source: sa.peer.address, destination: here }
      : { source: here, destination: sa.peer.address };
  }

  #ports(sa: SaId): { sourcePort: number; destinationPort: number } {
    const here = this.#options.underlay.port;
    return sa.direction === 'in'
      ? { sourcePort: sa.peer.port, destinationPort: here }
      : { sourcePort: here, destinationPort: sa.peer.port };
  }

  #installed(): InstalledSa[] {
    return this.#xfrm
      .states()
      .filter((state) => state.interfaceId === this.#options.interfaceId)
      .flatMap((state) => this.#describe(state) ?? []);
  }

  #describe(state: XfrmStateInfo): InstalledSa | undefined {
    const direction: SaDirection = state.destination === this.#options.underlay.address ? 'in' : 'out';
    const address = direction === 'in' ? state.source : state.destination;
    const note = this.#notes.get(saKey({ direction, spi: state.spi, peer: { address, port: 0 } }));
    if (note === undefined) return undefined;
    const { lifetimes } = note;
    const limits = [
      ['softBytes', lifetimes.softBytes],
      ['hardBytes', lifetimes.hardBytes],
      ['softPackets', lifetimes.softPackets],
      ['hardPackets', lifetimes.hardPackets],
    ] as const;
    return {
      direction,
      spi: state.spi,
      peer: { address, port: note.port },
      selectors: note.selectors.map(({ local, remote }) => ({ local: parseIp(local), remote: parseIp(remote) })),
      lifetimes: Object.fromEntries(limits.filter(([, value]) => value !== undefined)),
      replayWindow: note.replayWindow,
      note: note.note,
      expired:
        state.bytes >= (lifetimes.hardBytes ?? Number.POSITIVE_INFINITY) ||
        state.packets >= (lifetimes.hardPackets ?? Number.POSITIVE_INFINITY),
      statistics: {
        packets: state.packets,
        bytes: state.bytes,
        ...(state.usedAt === 0 ? {} : { idleMs: Math.max(0, Date.now() - state.usedAt * 1000) }),
        sequence: state.sequence,
        drops: { REPLAYED: state.replayFailures, AUTHENTICATION: state.integrityFailures },
      },
    };
  }

  /** The kernel enforces the hard limits; the soft ones are looked at here, once a second, to rekey in good time. */
  #checkLifetimes(): void {
    for (const sa of this.#installed()) {
      const { statistics, lifetimes } = sa;
      const cause =
        statistics.bytes >= (lifetimes.softBytes ?? Number.POSITIVE_INFINITY)
          ? 'bytes'
          : statistics.packets >= (lifetimes.softPackets ?? Number.POSITIVE_INFINITY)
            ? 'packets'
            : undefined;
      if (cause === undefined || this.#warned.has(saKey(sa))) continue;
      this.#warned.add(saKey(sa));
      this.emit(sa.expired ? 'hard' : 'soft', { sa, cause });
    }
  }

  #asTunnelError(cause: unknown, id: SaId): unknown {
    if (!(cause instanceof KernelError)) return cause;
    const code =
      cause.errno === 'EEXIST'
        ? 'SaExists'
        : cause.errno === 'ESRCH'
          ? 'NoSuchSa'
          : cause.errno === 'ENOMEM'
            ? 'DriverFull'
            : 'InvalidSa';
    return new TunnelError(code, `SPI ${id.spi}: ${cause.message}`, { cause });
  }

  #ignoreMissing(action: () => void): void {
    try {
      action();
    } catch (error) {
      if (!(error instanceof KernelError && error.errno === 'ENOENT')) throw error;
    }
  }
}

function pairKey(pair: TrafficSelector): string {
  return `${pair.local} ${pair.remote}`;
}

/** The port is not part of it: a state is known by direction, SPI and address (RFC 4301 section 4.1). */
function saKey(id: SaId): string {
  return `${id.direction} ${id.spi} ${id.peer.address}`;
}
