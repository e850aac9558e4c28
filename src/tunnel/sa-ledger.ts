import { messageOf } from '../identity/certificate.ts';
import type { IpAddress } from '../model/address.ts';
import type { SpiffeId } from '../model/identity.ts';
import {
  type InboundSa,
  type OutboundSa,
  type SaDirection,
  type SaId,
  type TrafficSelector,
  type TunnelDriver,
  TunnelError,
  type TunnelErrorCode,
} from './driver.ts';
import { HandshakeError } from './handshake/error.ts';
import type { RemotePod } from './peers.ts';

/** An inbound SA is in place: what arrives through it was sent by that pod, as its certificate proved. */
export interface TunnelProof {
  readonly local: IpAddress;
  readonly remote: IpAddress;
  readonly remoteUid: string;
  readonly remoteSpiffeId: SpiffeId;
  readonly spi: number;
}

export interface TunnelHooks {
  /** Called when an inbound SA is in place and before the peer is told, so before anything arrives through it. */
  readonly onProof: (proof: TunnelProof) => void | Promise<void>;
  /** Called before the last inbound SA of the address pair is removed. `spi` is that one's. */
  readonly onForget: (pair: TrafficSelector, spi: number) => void | Promise<void>;
}

export interface HeldSa extends SaId {
  readonly selectors: readonly TrafficSelector[];
}

/** Inbound SPIs in use on this node. */
export interface SpiPool {
  reserve(): number;
  release(spi: number): void;
}

/** A key that is equal for equal SAs. An inbound SPI is the receiver's own, so its peer does not count. */
export function saKey({ direction, spi, peer }: SaId): string {
  return direction === 'in' ? `in ${spi}` : `out ${spi} ${peer.address} ${peer.port}`;
}

/** Who has an SA in the driver: what a driver says of one SA is for one tunnel of thousands. */
export class SaHolders<Holder> {
  /** Inbound ones, by SPI. */
  readonly #in = new Map<number, Holder>();
  /** Outbound ones, by peer's address, then by its port and the SPI as one number: texts of thousands weigh more than they. */
  readonly #out = new Map<IpAddress, Map<number, Holder>>();

  find(sa: SaId): Holder | undefined {
    return sa.direction === 'in' ? this.#in.get(sa.spi) : this.#out.get(sa.peer.address)?.get(portAndSpi(sa));
  }

  add(sa: SaId, holder: Holder): void {
    if (sa.direction === 'in') {
      this.#in.set(sa.spi, holder);
      return;
    }
    let out = this.#out.get(sa.peer.address);
    if (out === undefined) {
      out = new Map();
      this.#out.set(sa.peer.address, out);
    }
    out.set(portAndSpi(sa), holder);
  }

  /** Only where it is this one's. */
  delete(sa: SaId, holder: Holder): void {
    if (this.find(sa) !== holder) return;
    if (sa.direction === 'in') {
      this.#in.delete(sa.spi);
      return;
    }
    const out = this.#out.get(sa.peer.address);
    out?.delete(portAndSpi(sa));
    if (out?.size === 0) this.#out.delete(sa.peer.address);
  }
}

function portAndSpi({ spi, peer }: SaId): number {
  return peer.port * 2 ** 32 + spi;
}

/** What one holder's ledger keeps up. */
export interface SaIndex {
  add(sa: SaId): void;
  delete(sa: SaId): void;
}

interface Held extends HeldSa {
  /** The handshake that installed it. */
  readonly attempt: number;
}

/** The driver said no, so the SA is not there; after other errors it may be. */
const notInstalled: ReadonlySet<TunnelErrorCode> = new Set(['SaExists', 'InvalidSa', 'DriverFull']);

/** The SAs that one tunnel has in the driver, and what the hooks were told of them. */
export class SaLedger {
  readonly #driver: TunnelDriver;
  readonly #hooks: TunnelHooks;
  readonly #spis: SpiPool;
  readonly #index: SaIndex;
  /** In the order of their installation: a handful, and another list after each change. */
  #held: readonly Held[] = [];
  #proof: HeldSa | undefined;
  #provesNothing = false;

  constructor(driver: TunnelDriver, hooks: TunnelHooks, spis: SpiPool, index: SaIndex) {
    this.#driver = driver;
    this.#hooks = hooks;
    this.#spis = spis;
    this.#index = index;
  }

  get sas(): readonly HeldSa[] {
    return this.#held;
  }

  /** Takes over what an earlier agent of this node installed. */
  async restore(sas: readonly HeldSa[], remote: RemotePod): Promise<void> {
    for (const sa of sas) this.#hold({ ...sa, attempt: 0 });
    await this.prove(remote);
  }

  /** @returns Once the SA is in use, and what it proves is known. @throws {HandshakeError} `driver` */
  async install(sa: InboundSa | OutboundSa, attempt: number, remote: RemotePod): Promise<void> {
    if (this.#held.some((other) => isSameSa(other, sa)))
      throw new HandshakeError('driver', `the peer chose the SPI ${sa.spi} a second time`);
    const { direction, spi, peer, selectors } = sa;
    const held = { direction, spi, peer, selectors, attempt };
    // Noted before it is there: should the driver never answer, it is removed all the same.
    this.#hold(held);
    try {
      await (sa.direction === 'in' ? this.#driver.installInbound(sa) : this.#driver.installOutbound(sa));
    } catch (cause) {
      if (cause instanceof TunnelError && notInstalled.has(cause.code)) this.#letGo(held);
      throw new HandshakeError('driver', messageOf(cause), { cause });
    }
    const proving = direction === 'in' ? this.prove(remote) : undefined;
    if (proving !== undefined) await proving;
  }

  /** Removes the SA if the tunnel has it. What only it proved is forgotten before its key is gone. */
  async remove(direction: SaDirection, spi: number, remote: RemotePod): Promise<void> {
    for (const sa of this.#held) {
      if (sa.direction !== direction || sa.spi !== spi) continue;
      this.#letGo(sa);
      if (direction === 'in') await this.prove(remote);
      try {
        await this.#driver.remove(sa);
      } catch (cause) {
        if (!(cause instanceof TunnelError && cause.code === 'NoSuchSa')) throw cause;
      } finally {
        if (direction === 'in') this.#spis.release(spi);
      }
    }
  }

  /** Removes what a handshake that failed had installed. */
  async undo(attempt: number, remote: RemotePod): Promise<void> {
    for (const sa of this.#held) if (sa.attempt === attempt) await this.remove(sa.direction, sa.spi, remote);
  }

  /** Whether the handshake has installed anything, or may have. */
  hasInstalled(attempt: number, direction?: SaDirection): boolean {
    return this.#held.some((sa) => sa.attempt === attempt && (direction === undefined || sa.direction === direction));
  }

  /** The driver has lost them all. */
  async lost(remote: RemotePod): Promise<void> {
    for (const sa of this.#held) {
      if (sa.direction === 'in') this.#spis.release(sa.spi);
      this.#letGo(sa);
    }
    await this.prove(remote);
  }

  /** From here on nothing that is installed proves anything, nor anything that is installed later. */
  async disown(remote: RemotePod): Promise<void> {
    this.#provesNothing = true;
    await this.prove(remote);
  }

  /**
   * The peer's node is elsewhere on the underlay.
   * @param to Without a port: at the one that it has.
   * @throws {AggregateError} What the driver said of those that it did not move; all others are moved.
   * @throws {TunnelError} `DriverDown`
   */
  async move(to: { readonly address: IpAddress; readonly port?: number }): Promise<void> {
    const refusals: unknown[] = [];
    for (const sa of this.#held) {
      const peer = { address: to.address, port: to.port ?? sa.peer.port };
      if (sa.peer.address === peer.address && sa.peer.port === peer.port) continue;
      try {
        await this.#driver.movePeer(sa, peer);
      } catch (refusal) {
        if (refusal instanceof TunnelError && refusal.code === 'DriverDown') throw refusal;
        refusals.push(refusal);
        continue;
      }
      // It may have been removed meanwhile.
      if (!this.#held.includes(sa)) continue;
      this.#index.delete(sa);
      const moved = { ...sa, peer };
      this.#held = this.#held.map((other) => (other === sa ? moved : other));
      this.#index.add(moved);
    }
    if (refusals.length > 0) throw new AggregateError(refusals, `not moved: ${refusals.map(messageOf).join('; ')}`);
  }

  /** Tells the hooks which inbound SA is the newest now, if that has changed. @returns Undefined where that is done at once. */
  prove(remote: RemotePod): Promise<unknown> | undefined {
    let newest: HeldSa | undefined;
    if (!this.#provesNothing) for (const sa of this.#held) if (sa.direction === 'in') newest = sa;
    const last = this.#proof;
    if (newest?.spi === last?.spi) return undefined;
    this.#proof = newest;
    return newest === undefined ? this.#forget(last) : this.#tell(newest, remote);
  }

  #tell({ spi, selectors }: HeldSa, { pod, spiffeId }: RemotePod): Promise<unknown> | undefined {
    let told: Promise<void>[] | undefined;
    for (const { local, remote } of selectors) {
      const done = this.#hooks.onProof({ local, remote, remoteUid: pod.uid, remoteSpiffeId: spiffeId, spi });
      if (done === undefined) continue;
      told ??= [];
      told.push(done);
    }
    return told === undefined ? undefined : Promise.all(told);
  }

  async #forget(last: HeldSa | undefined): Promise<void> {
    for (const pair of last?.selectors ?? []) await this.#hooks.onForget(pair, last?.spi ?? 0);
  }

  #hold(sa: Held): void {
    this.#held = [...this.#held, sa];
    this.#index.add(sa);
  }

  #letGo(sa: Held): void {
    this.#held = this.#held.filter((other) => other !== sa);
    this.#index.delete(sa);
  }
}

function isSameSa(a: SaId, b: SaId): boolean {
  if (a.direction !== b.direction || a.spi !== b.spi) return false;
  return a.direction === 'in' || (a.peer.address === b.peer.address && a.peer.port === b.peer.port);
}
