import { EventEmitter } from 'node:events';
import type { Logger } from 'pino';
import { messageOf } from '../identity/certificate.ts';
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
} from './driver.ts';
import { isKernelSpi } from './spi-shape.ts';

const lookMs = 1000;

/**
 * Two drivers of one node while its tunnels go over from one to the other. What is new is installed in the one; what is in the
 * other goes on carrying packets, is shown as leaving so that its pairs get new keys at once, and is removed as old keys are: what is
 * received only after the grace period of a rekey. So nothing is lost that a rekey would not lose.
 */
export class ChangingDriver extends EventEmitter<TunnelDriverEvents> implements TunnelDriver {
  readonly name: 'engine' | 'xfrm';
  readonly spiOf: (random: number) => number;
  /** Resolves when the other driver has nothing left. */
  readonly over: Promise<void>;
  readonly #to: TunnelDriver;
  readonly #from: TunnelDriver;
  readonly #onOutbound: (pairs: readonly TrafficSelector[]) => Promise<void>;
  readonly #log: Logger;
  readonly #undo: (() => void)[] = [];
  #isOver = false;

  /** @param options.onOutbound Called when pairs have an SA that sends in the new driver. */
  constructor(
    to: TunnelDriver,
    from: TunnelDriver,
    options: { readonly log: Logger; readonly onOutbound?: (pairs: readonly TrafficSelector[]) => Promise<void> },
  ) {
    super();
    this.name = to.name;
    this.spiOf = (random) => to.spiOf?.(random) ?? random;
    this.#to = to;
    this.#from = from;
    this.#log = options.log;
    this.#onOutbound = options.onOutbound ?? (async () => {});
    this.#pass(to, from);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.over = promise;
    const timer = setInterval(() => this.#look(resolve), lookMs);
    timer.unref();
    this.#undo.push(() => clearInterval(timer));
  }

  async installInbound(sa: InboundSa): Promise<void> {
    await this.#to.installInbound(sa);
  }

  async installOutbound(sa: OutboundSa): Promise<void> {
    const { selectors } = sa;
    await this.#to.installOutbound(sa);
    if (!this.#isOver) await this.#onOutbound(selectors);
  }

  async remove(id: SaId): Promise<void> {
    await this.#whereItIs((driver) => driver.remove(id));
  }

  async movePeer(id: SaId, peer: UnderlayAddress): Promise<void> {
    await this.#whereItIs((driver) => driver.movePeer(id, peer));
  }

  async list(): Promise<InstalledSa[]> {
    const now = await this.#to.list();
    if (this.#isOver) return now;
    return [...(await this.#from.list()).map((sa) => ({ ...sa, leaving: true })), ...now];
  }

  async statistics(): Promise<DriverStatistics> {
    const now = await this.#to.statistics();
    if (this.#isOver) return now;
    const { sealed, opened, sas } = await this.#from.statistics();
    const sum = (a: typeof sealed, b: typeof sealed) => ({ packets: a.packets + b.packets, bytes: a.bytes + b.bytes });
    return {
      ...now,
      sealed: sum(now.sealed, sealed),
      opened: sum(now.opened, opened),
      sas: { in: now.sas.in + sas.in, out: now.sas.out + sas.out },
    };
  }

  async fail(pair: TrafficSelector): Promise<void> {
    await this.#to.fail(pair);
  }

  /** Closes the kernel's driver; the engine's is whoever's that opened it. */
  async close(): Promise<void> {
    this.#stop();
    for (const driver of [this.#to, this.#from]) if (driver.name === 'xfrm') await driver.close();
  }

  #stop(): void {
    for (const undo of this.#undo.splice(0)) undo();
  }

  async #whereItIs(action: (driver: TunnelDriver) => Promise<void>): Promise<void> {
    try {
      await action(this.#to);
    } catch (error) {
      if (this.#isOver || !(error instanceof TunnelError && error.code === 'NoSuchSa')) throw error;
      await action(this.#from);
    }
  }

  #pass(to: TunnelDriver, from: TunnelDriver): void {
    const soft = (...args: TunnelDriverEvents['soft']) => this.emit('soft', ...args);
    const hard = (...args: TunnelDriverEvents['hard']) => this.emit('hard', ...args);
    const moved = (...args: TunnelDriverEvents['moved']) => this.emit('moved', ...args);
    const up = () => this.emit('up');
    to.on('acquire', (...args) => this.emit('acquire', ...args))
      .on('unknownSpi', (...args) => this.emit('unknownSpi', ...args))
      .on('drop', (...args) => this.emit('drop', ...args))
      .on('down', (...args) => this.emit('down', ...args));
    to.on('soft', soft).on('hard', hard).on('moved', moved).on('up', up);
    // Of the rest, the kernel's driver says again what the engine, its holder, says by itself.
    const unknown = (...args: TunnelDriverEvents['unknownSpi']) => {
      if (isKernelSpi(args[0].spi)) this.emit('unknownSpi', ...args);
    };
    from.on('soft', soft).on('hard', hard).on('moved', moved);
    if (from.name === 'engine') from.on('up', up);
    else from.on('unknownSpi', unknown);
    this.#undo.push(() => {
      from.off('soft', soft).off('hard', hard).off('moved', moved).off('up', up).off('unknownSpi', unknown);
    });
  }

  #look(done: () => void): void {
    this.#from.list().then(
      async (left) => {
        if (left.length > 0 || this.#isOver) return;
        this.#isOver = true;
        this.#stop();
        if (this.#from.name === 'xfrm') await this.#from.close();
        this.#log.info({ driver: this.name }, 'all tunnels are the new driver’s');
        done();
      },
      (error: unknown) => this.#log.debug({ error: messageOf(error) }, 'the old driver is asked again'),
    );
  }
}
