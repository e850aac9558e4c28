import { EventEmitter } from 'node:events';
import type { IpAddress } from '../../src/model/address.ts';
import {
  type DriverStatistics,
  type InboundSa,
  type InstalledSa,
  type OutboundSa,
  type SaId,
  type TrafficSelector,
  type TunnelDriver,
  type TunnelDriverEvents,
  TunnelError,
  type UnderlayAddress,
} from '../../src/tunnel/driver.ts';

/** What a driver keeps of one, its key aside. */
type Kept = Pick<InboundSa | OutboundSa, 'direction' | 'spi' | 'selectors' | 'lifetimes' | 'note'>;

interface Held {
  readonly sa: Kept;
  /** Key and salt: the driver's own copy, as a string of bytes. */
  readonly secret: string;
  peer: UnderlayAddress;
  packets: number;
  expired: boolean;
}

export type Fate = 'delivered' | 'held' | 'unknown-spi' | 'wrong-key' | 'selector';

/** Nodes of one test that reach each other. */
export class Underlay {
  readonly nodes = new Map<string, MemoryDriver>();
}

const done = Promise.resolve();

/**
 * A tunnel driver in memory, for the tests of what stands above drivers. It keeps the contract of driver.ts, and a
 * packet sent through it arrives only where the other node's driver holds the same key for the same SPI and selectors.
 */
export class MemoryDriver extends EventEmitter<TunnelDriverEvents> implements TunnelDriver {
  readonly name = 'engine';
  readonly #at: UnderlayAddress;
  readonly #underlay: Underlay;
  readonly #held = new Map<string, Held>();
  /** Outbound ones by address pair, in the order of their making. */
  readonly #sending = new Map<string, Held[]>();
  readonly #waiting = new Map<string, { pair: TrafficSelector; packets: number }>();
  /** What happened, in order; a measurement of thousands of pairs goes without. */
  readonly log: string[] = [];
  keepsLog = true;
  /** Fates of packets that were sent here, held ones when they are let go. */
  readonly fates = new Map<Fate, number>();
  failed = 0;
  /** Awaited before each request is carried out. */
  delay: (() => Promise<void>) | undefined;
  refuse: ((sa: InboundSa | OutboundSa) => Error | undefined) | undefined;

  constructor(at: UnderlayAddress, underlay: Underlay) {
    super();
    this.#at = at;
    this.#underlay = underlay;
    underlay.nodes.set(`${at.address} ${at.port}`, this);
  }

  installInbound(sa: InboundSa): Promise<void> {
    return this.#install(sa);
  }

  installOutbound(sa: OutboundSa): Promise<void> {
    return this.#install(sa).then(() => this.#release(sa));
  }

  #release(sa: OutboundSa): void {
    for (const selector of sa.selectors) {
      const key = pairKey(selector);
      const waiting = this.#waiting.get(key);
      this.#waiting.delete(key);
      for (let i = 0; i < (waiting?.packets ?? 0); i++) this.send(selector);
    }
  }

  async remove(id: SaId): Promise<void> {
    if (this.delay !== undefined) await this.delay();
    const found = this.#held.get(keyOf(id));
    if (found === undefined) throw new TunnelError('NoSuchSa', `no SA ${id.direction} ${id.spi}`);
    this.#held.delete(keyOf(id));
    for (const selector of found.sa.selectors) {
      const others = this.#sending.get(pairKey(selector))?.filter((held) => held !== found) ?? [];
      if (others.length === 0) this.#sending.delete(pairKey(selector));
      else this.#sending.set(pairKey(selector), others);
    }
    if (this.keepsLog) this.log.push(`remove ${id.direction} ${id.spi}`);
  }

  async movePeer(id: SaId, peer: UnderlayAddress): Promise<void> {
    const found = this.#held.get(keyOf(id));
    if (found === undefined) throw new TunnelError('NoSuchSa', `no SA ${id.direction} ${id.spi}`);
    this.#held.delete(keyOf(id));
    found.peer = peer;
    this.#held.set(keyOf({ ...id, peer }), found);
  }

  async list(): Promise<InstalledSa[]> {
    return [...this.#held.values()].map(({ sa, peer, packets, expired }) => ({
      direction: sa.direction,
      spi: sa.spi,
      peer,
      selectors: sa.selectors,
      lifetimes: sa.lifetimes,
      replayWindow: 4096,
      note: sa.note,
      expired,
      statistics: { packets, bytes: 100 * packets, sequence: packets, drops: {} },
    }));
  }

  async statistics(): Promise<DriverStatistics> {
    const nothing = { packets: 0, bytes: 0 };
    return {
      drops: {},
      sealed: nothing,
      opened: nothing,
      held: { pairs: this.#waiting.size, ...nothing },
      sas: { in: 0, out: 0 },
      details: {},
    };
  }

  async fail(pair: TrafficSelector): Promise<void> {
    if (this.delay !== undefined) await this.delay();
    const waiting = this.#waiting.get(pairKey(pair));
    this.failed += waiting?.packets ?? 0;
    this.#waiting.delete(pairKey(pair));
  }

  async close(): Promise<void> {}

  /** A pod of this node sends a packet. */
  send(pair: TrafficSelector): Fate {
    const fate = this.#send(pair);
    this.fates.set(fate, (this.fates.get(fate) ?? 0) + 1);
    return fate;
  }

  /** How many packets of the pair wait for a key. */
  waiting(pair: TrafficSelector): number {
    return this.#waiting.get(pairKey(pair))?.packets ?? 0;
  }

  /** The newest outbound SA of the pair reached a limit. */
  reachLimit(pair: TrafficSelector, kind: 'soft' | 'hard'): void {
    const out = this.#outbound(pair);
    if (out === undefined) throw new Error('no such SA');
    if (kind === 'hard') out.expired = true;
    const { direction, spi } = out.sa;
    this.emit(kind, { sa: { direction, spi, peer: out.peer }, cause: 'bytes' });
  }

  /** The engine died and was started again. */
  crash(): void {
    this.#held.clear();
    this.#sending.clear();
    this.emit('up');
  }

  /** Keys by direction and SPI, to be compared with the other node's. */
  secrets(): Map<string, string> {
    return new Map(
      [...this.#held.values()].map(({ sa, secret }) => [
        `${sa.direction} ${sa.spi}`,
        Buffer.from(secret, 'latin1').toString('hex'),
      ]),
    );
  }

  #outbound(pair: TrafficSelector): Held | undefined {
    return this.#sending.get(pairKey(pair))?.findLast(({ expired }) => !expired);
  }

  #send(pair: TrafficSelector): Fate {
    const out = this.#outbound(pair);
    if (out === undefined) {
      const key = pairKey(pair);
      const waiting = this.#waiting.get(key);
      this.#waiting.set(key, { pair, packets: (waiting?.packets ?? 0) + 1 });
      if (waiting === undefined) queueMicrotask(() => this.emit('acquire', pair));
      return 'held';
    }
    out.packets++;
    const other = this.#underlay.nodes.get(`${out.peer.address} ${out.peer.port}`);
    return (
      other?.receive(out.sa.spi, out.secret, { local: pair.remote, remote: pair.local }, this.#at) ?? 'unknown-spi'
    );
  }

  receive(spi: number, secret: string, pair: TrafficSelector, from: UnderlayAddress): Fate {
    const held = this.#held.get(`in ${spi}`);
    if (held === undefined) {
      queueMicrotask(() => this.emit('unknownSpi', { spi, from }));
      return 'unknown-spi';
    }
    if (held.secret !== secret) return 'wrong-key';
    if (!covers(held.sa, pair)) return 'selector';
    held.packets++;
    return 'delivered';
  }

  #install(sa: InboundSa | OutboundSa): Promise<void> {
    const secret = Buffer.concat([sa.key, sa.salt]).toString('latin1');
    sa.key.fill(0);
    sa.salt.fill(0);
    if (this.delay !== undefined) return this.delay().then(() => this.#keep(sa, secret));
    try {
      this.#keep(sa, secret);
      return done;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #keep(sa: InboundSa | OutboundSa, secret: string): void {
    const refusal = this.refuse?.(sa);
    if (refusal !== undefined) throw refusal;
    const { direction, spi, selectors, lifetimes, note, peer } = sa;
    const id = keyOf(sa);
    if (this.#held.has(id)) throw new TunnelError('SaExists', `SA ${spi} exists`);
    if (Buffer.byteLength(note) > 1024) throw new TunnelError('InvalidSa', 'the note is too long');
    const held: Held = { sa: { direction, spi, selectors, lifetimes, note }, secret, peer, packets: 0, expired: false };
    this.#held.set(id, held);
    if (direction === 'out')
      for (const selector of selectors) {
        const key = pairKey(selector);
        const others = this.#sending.get(key);
        if (others === undefined) this.#sending.set(key, [held]);
        else others.push(held);
      }
    if (this.keepsLog) this.log.push(`install ${direction} ${spi}`);
  }
}

function keyOf({ direction, spi, peer }: SaId): string {
  return direction === 'in' ? `in ${spi}` : `out ${spi} ${peer.address} ${peer.port}`;
}

function covers(sa: Kept, pair: TrafficSelector): boolean {
  return sa.selectors.some(({ local, remote }) => local === pair.local && remote === pair.remote);
}

function pairKey({ local, remote }: { local: IpAddress; remote: IpAddress }): string {
  return `${local} ${remote}`;
}
