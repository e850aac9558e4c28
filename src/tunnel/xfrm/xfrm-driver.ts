import { EventEmitter } from 'node:events';
import type { Logger } from 'pino';
import { KernelError } from '../../kernel/error.ts';
import { Xfrm, XfrmEvents, xfrmCounters } from '../../kernel/xfrm.ts';
import type { XfrmExpiry, XfrmState, XfrmStateId, XfrmStateInfo } from '../../kernel/xfrm-layout.ts';
import type { XfrmMapping } from '../../kernel/xfrm-moving.ts';
import { familyOf } from '../../model/address.ts';
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
  type TunnelErrorCode,
  type UnderlayAddress,
} from '../driver.ts';
import { isKernelSpi, kernelSpi } from '../spi-shape.ts';
import { checkSa, replayWindowOf } from './check.ts';
import { describe, exhausted, statisticsOf } from './describe.ts';
import { movePeer, stateIdOf, stateOf } from './moving.ts';
import { noteKey, type SaNote, SaNotes } from './notes.ts';
import { ignoreMissing, type PathTable, Sending } from './sending.ts';
import { StraySpis } from './strays.ts';

/** Who keeps the packets of pairs that have no outbound association yet; the kernel's own queue is one for all pairs. */
export interface PacketHolder extends EventEmitter<TunnelDriverEvents> {
  /** Puts what is held back into the datapath, in its order; it finds the association that is there now. */
  release(pair: TrafficSelector): Promise<void>;
  fail(pair: TrafficSelector): Promise<void>;
  statistics(): Promise<DriverStatistics>;
}

export interface XfrmDriverOptions {
  /** This node's underlay address and ESP port. */
  readonly underlay: UnderlayAddress;
  /** The device that reaches the other nodes. */
  readonly uplink: string;
  /** `if_id` of the xfrm device that carries all tunnels. */
  readonly interfaceId: number;
  /** Directory of what the kernel does not keep, on a tmpfs. */
  readonly notesPath: string;
  /** Index of the uplink where it says that it can seal and open ESP. */
  readonly offload?: number | undefined;
}

/** The kernel's bitmaps end here (XFRMA_REPLAY_ESN_MAX). */
const largestWindow = 4096;

/**
 * Tunnels in the kernel: ESP by xfrm. Everything is carried out within the call, in the kernel; associations, policies
 * and paths stay there and go on carrying packets when the agent is away.
 *
 * Packets of a pair whose path opens while others of it are held may overtake these.
 *
 * Unlike the engine, the kernel drops what is under way at the moment of a hard limit, and follows a packet that was overtaken
 * as well as the newest.
 */
export class XfrmDriver extends EventEmitter<TunnelDriverEvents> implements TunnelDriver {
  readonly name = 'xfrm';
  readonly spiOf = kernelSpi;
  readonly #options: XfrmDriverOptions;
  readonly #holder: PacketHolder;
  readonly #log: Logger | undefined;
  /** Directions in which the kernel has not let the uplink seal, or open. */
  readonly #refused = new Set<SaDirection>();
  readonly #xfrm: Xfrm;
  readonly #notes: SaNotes;
  readonly #events: XfrmEvents;
  readonly #strays: StraySpis;
  readonly #sending: Sending;
  /** Out of use and gone from the kernel, until they are removed. */
  readonly #expired = new Map<string, InstalledSa>();
  /** What associations that are gone have carried. */
  readonly #past = { in: { packets: 0, bytes: 0 }, out: { packets: 0, bytes: 0 } };
  readonly #warned = new Set<string>();
  readonly #onAcquire = (pair: TrafficSelector) => this.#acquire(pair);
  // Of the SPIs that are not the kernel's, which come to the holder where it shares the port.
  readonly #onUnknown = (...args: TunnelDriverEvents['unknownSpi']) => this.emit('unknownSpi', ...args);
  readonly #onDrop = (...args: TunnelDriverEvents['drop']) => this.emit('drop', ...args);

  /**
   * Takes over what an earlier agent left in the kernel; what only half of it is known of is removed.
   * @throws {KernelError} `Errno`
   */
  constructor(
    options: XfrmDriverOptions,
    deps: { readonly holder: PacketHolder; readonly paths: PathTable; readonly log?: Logger },
  ) {
    super();
    this.#options = options;
    this.#log = deps.log;
    this.#holder = deps.holder;
    this.#notes = new SaNotes(options.notesPath);
    this.#xfrm = new Xfrm();
    const { interfaceId, underlay, uplink } = options;
    this.#sending = new Sending(this.#xfrm, deps.paths, { source: underlay.address, interfaceId });
    this.#takeOver();
    this.#events = new XfrmEvents({
      onExpiry: (expiry) => this.#onExpiry(expiry),
      onMapping: (mapping) => this.#onMapping(mapping),
      onLoss: () => this.#lookForExpiries(),
    });
    this.#strays = new StraySpis({ uplink, port: underlay.port, family: familyOf(underlay.address) }, (spi, from) => {
      if (isKernelSpi(spi) && this.#notes.get({ direction: 'in', spi, peer: from }) === undefined)
        this.emit('unknownSpi', { spi, from });
    });
    this.#holder.on('acquire', this.#onAcquire).on('drop', this.#onDrop).on('unknownSpi', this.#onUnknown);
  }

  async installInbound(sa: InboundSa): Promise<void> {
    this.#add(sa, () => Math.min(replayWindowOf(sa), largestWindow));
  }

  async installOutbound(sa: OutboundSa): Promise<void> {
    this.#add(sa, () => 0);
    try {
      for (const pair of sa.selectors) this.#sending.begin(pair, sa);
    } catch (cause) {
      await this.remove(sa);
      throw asTunnelError(cause, sa);
    }
    for (const pair of sa.selectors) await this.#release(pair);
  }

  async remove(id: SaId): Promise<void> {
    if (this.#expired.delete(noteKey(id))) return;
    const note = this.#notes.get(id);
    if (note === undefined) throw new TunnelError('NoSuchSa', `there is no ${id.direction}bound SPI ${id.spi}`);
    try {
      this.#sendNoMore(note);
      const carried = this.#xfrm.usage(this.#stateId(id));
      this.#xfrm.deleteState(this.#stateId(id));
      this.#addToPast(id, carried);
    } catch (cause) {
      throw asTunnelError(cause, id);
    } finally {
      this.#forget(id);
    }
  }

  async movePeer(id: SaId, peer: UnderlayAddress): Promise<void> {
    const expired = this.#expired.get(noteKey(id));
    if (expired !== undefined) {
      const moved = { ...expired, peer };
      this.#expired.delete(noteKey(id));
      this.#expired.set(noteKey(moved), moved);
      return;
    }
    const note = this.#notes.get(id);
    if (note === undefined) throw new TunnelError('NoSuchSa', `there is no ${id.direction}bound SPI ${id.spi}`);
    const { address, port } = note.peer;
    if (address === peer.address && port === peer.port) return;
    const [xfrm, notes, sending, options] = [this.#xfrm, this.#notes, this.#sending, this.#options];
    try {
      const moved = movePeer(note, peer, { xfrm, notes, sending, options });
      if (this.#warned.delete(noteKey(note))) this.#warned.add(noteKey(moved));
    } catch (cause) {
      throw asTunnelError(cause, id);
    }
  }

  async list(): Promise<InstalledSa[]> {
    const states = new Map(this.#states().map((state) => [noteKey(this.#saId(state)), state]));
    const live = this.#notes.all.flatMap((note) => {
      const state = states.get(noteKey(note));
      return state === undefined ? [] : [describe(note, state)];
    });
    return [...live, ...this.#expired.values()];
  }

  /** Of the kernel and the holder. Rejects where the holder is away: then no new tunnel can be asked for. */
  async statistics(): Promise<DriverStatistics> {
    const held = await this.#holder.statistics();
    return statisticsOf(await this.list(), this.#past, held, xfrmCounters());
  }

  async fail(pair: TrafficSelector): Promise<void> {
    await this.#holder.fail(pair);
  }

  async close(): Promise<void> {
    this.#holder.off('acquire', this.#onAcquire).off('drop', this.#onDrop).off('unknownSpi', this.#onUnknown);
    this.#strays.close();
    this.#events.close();
    this.#xfrm.close();
  }

  #takeOver(): void {
    const known = new Set(this.#notes.all.map(noteKey));
    const there = new Set<string>();
    for (const state of this.#states()) {
      const id = this.#saId(state);
      if (known.has(noteKey(id))) there.add(noteKey(id));
      else ignoreMissing(() => this.#xfrm.deleteState(state));
    }
    for (const note of this.#notes.all) {
      if (!there.has(noteKey(note))) this.#notes.delete(note);
      else if (note.direction === 'out') for (const pair of note.selectors) this.#sending.begin(pair, note);
    }
    this.#sending.removeRest();
  }

  #add(sa: InboundSa | OutboundSa, window: () => number): void {
    const keyAndSalt = Buffer.concat([sa.key, sa.salt]);
    let noted = false;
    try {
      this.#check(sa);
      const { direction, spi, peer, selectors, lifetimes, note } = sa;
      const replayWindow = window();
      // Noted before it is there: a note without an association is dropped at the next start, the other way round is too.
      this.#notes.add({ direction, spi, peer, selectors, lifetimes, replayWindow, note });
      noted = true;
      this.#addState(direction, { ...stateOf(sa, replayWindow, this.#options), keyAndSalt });
    } catch (cause) {
      if (noted) this.#notes.delete(sa);
      throw asTunnelError(cause, sa);
    } finally {
      for (const secret of [keyAndSalt, sa.key, sa.salt]) secret.fill(0);
    }
  }

  /**
   * With the uplink's help where it has any. A refusal holds for all of the direction. The policy that uses a state comes
   * after it, as offload needs it: a policy finds the state's device, not the reverse.
   */
  #addState(direction: SaDirection, state: XfrmState): void {
    const { offload: ifindex, uplink } = this.#options;
    if (ifindex !== undefined && !this.#refused.has(direction))
      try {
        this.#xfrm.addState({ ...state, offload: { ifindex, direction } });
        return;
      } catch (cause) {
        if (!(cause instanceof KernelError) || cause.errno === 'EEXIST') throw cause;
        this.#refused.add(direction);
        this.#log?.warn({ uplink, direction, why: cause.errno }, 'the uplink is not given ESP: the processor does it');
      }
    this.#xfrm.addState(state);
  }

  #check(sa: InboundSa | OutboundSa): void {
    checkSa(sa);
    if (familyOf(sa.peer.address) !== familyOf(this.#options.underlay.address))
      throw new TunnelError('InvalidSa', `SPI ${sa.spi}: ${sa.peer.address} is not of the underlay’s family`);
    if (this.#notes.get(sa) !== undefined || this.#expired.has(noteKey(sa)))
      throw new TunnelError(
        'SaExists',
        `there is a ${sa.direction}bound SPI ${sa.spi}, and a key is installed only once`,
      );
  }

  #sendNoMore({ direction, spi, peer, selectors }: SaNote): void {
    if (direction === 'out') for (const pair of selectors) this.#sending.end(pair, { direction, spi, peer });
  }

  async #release(pair: TrafficSelector): Promise<void> {
    try {
      await this.#holder.release(pair);
    } catch (error) {
      // A holder that is away holds nothing any more.
      if (!(error instanceof TunnelError && error.code === 'DriverDown')) throw error;
    }
  }

  #acquire(pair: TrafficSelector): void {
    // Packets that were on their way to the holder when the path opened: they only have to follow it.
    if (this.#sending.has(pair)) this.#release(pair).catch(() => undefined);
    else this.emit('acquire', pair);
  }

  #onExpiry({ state, hard }: XfrmExpiry): void {
    if (state.interfaceId !== this.#options.interfaceId) return;
    const note = this.#notes.get(this.#saId(state));
    if (note === undefined) return;
    if (hard) this.#end(describe(note, state), note);
    else this.#warn(describe(note, state));
  }

  /** The kernel has opened a packet, so whoever has the key has sealed it; that it was replayed was ruled out before. */
  #onMapping({ destination, spi, from }: XfrmMapping): void {
    if (destination !== this.#options.underlay.address) return;
    const note = this.#notes.get({ direction: 'in', spi, peer: from });
    if (note === undefined || (note.peer.address === from.address && note.peer.port === from.port)) return;
    this.emit('moved', { sa: { direction: 'in', spi, peer: note.peer }, from });
  }

  /** After messages were lost: who is gone has reached its hard limit. */
  #lookForExpiries(): void {
    const states = new Map(this.#states().map((state) => [noteKey(this.#saId(state)), state]));
    for (const note of this.#notes.all) {
      const state = states.get(noteKey(note));
      if (state === undefined) this.#end(describe(note), note);
      else if (exhausted(describe(note, state), 'soft') !== undefined) this.#warn(describe(note, state));
    }
  }

  #warn(sa: InstalledSa): void {
    if (this.#warned.has(noteKey(sa))) return;
    this.#warned.add(noteKey(sa));
    this.emit('soft', { sa, cause: exhausted(sa, 'soft') ?? 'bytes' });
  }

  #end(sa: InstalledSa, note: SaNote): void {
    this.#sendNoMore(note);
    this.#forget(sa);
    this.#addToPast(sa, sa.statistics);
    this.#expired.set(noteKey(sa), { ...sa, expired: true });
    this.emit('hard', { sa, cause: exhausted(sa, 'hard') ?? 'bytes' });
  }

  #forget(id: SaId): void {
    this.#notes.delete(id);
    this.#warned.delete(noteKey(id));
  }

  #addToPast({ direction }: SaId, carried: { readonly packets: number; readonly bytes: number }): void {
    this.#past[direction].packets += carried.packets;
    this.#past[direction].bytes += carried.bytes;
  }

  #states(): XfrmStateInfo[] {
    return this.#xfrm.states().filter(({ interfaceId }) => interfaceId === this.#options.interfaceId);
  }

  #saId({ source, destination, spi }: XfrmStateInfo): SaId {
    const direction = destination === this.#options.underlay.address ? 'in' : 'out';
    return { direction, spi, peer: { address: direction === 'in' ? source : destination, port: 0 } };
  }

  #stateId(id: SaId): XfrmStateId {
    return stateIdOf(id, this.#options.underlay.address);
  }
}

const codes: ReadonlyMap<string, TunnelErrorCode> = new Map([
  ['EEXIST', 'SaExists'],
  ['ESRCH', 'NoSuchSa'],
  ['ENOMEM', 'DriverFull'],
  ['E2BIG', 'DriverFull'],
]);

function asTunnelError(cause: unknown, { spi }: SaId): unknown {
  if (!(cause instanceof KernelError)) return cause;
  const code = codes.get(cause.errno ?? '') ?? 'InvalidSa';
  return new TunnelError(code, `SPI ${spi}: ${cause.message}`, { cause });
}
