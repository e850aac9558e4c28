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

/** Who has an SA in the driver, by {@link saKey}: what a driver says of one SA is for one tunnel of thousands. */
export class SaHolders<Holder> {
  readonly #of = new Map<string, Holder>();

  find(sa: SaId): Holder | undefined {
    return this.#of.get(saKey(sa));
  }

  /** @returns What one holder's ledger keeps up. */
  indexOf(holder: Holder): SaIndex {
    return {
      add: (key) => this.#of.set(key, holder),
      delete: (key) => {
        if (this.#of.get(key) === holder) this.#of.delete(key);
      },
    };
  }
}

export interface SaIndex {
  readonly add: (key: string) => void;
  readonly delete: (key: string) => void;
}

/** The driver said no, so the SA is not there; after other errors it may be. */
const notInstalled: ReadonlySet<TunnelErrorCode> = new Set(['SaExists', 'InvalidSa', 'DriverFull']);

/** The SAs that one tunnel has in the driver, and what the hooks were told of them. */
export class SaLedger {
  readonly #driver: TunnelDriver;
  readonly #hooks: TunnelHooks;
  readonly #spis: SpiPool;
  readonly #index: SaIndex;
  /** In the order of their installation, each with the handshake that installed it. */
  readonly #held = new Map<string, HeldSa & { readonly attempt: number }>();
  #proof: { readonly spi: number; readonly selectors: readonly TrafficSelector[] } | undefined;
  #provesNothing = false;

  constructor(driver: TunnelDriver, hooks: TunnelHooks, spis: SpiPool, index: SaIndex) {
    this.#driver = driver;
    this.#hooks = hooks;
    this.#spis = spis;
    this.#index = index;
  }

  get sas(): readonly HeldSa[] {
    return [...this.#held.values()];
  }

  /** Takes over what an earlier agent of this node installed. */
  async restore(sas: readonly HeldSa[], remote: RemotePod): Promise<void> {
    for (const sa of sas) this.#hold(saKey(sa), { ...sa, attempt: 0 });
    await this.prove(remote);
  }

  /** @returns Once the SA is in use, and what it proves is known. @throws {HandshakeError} `driver` */
  async install(sa: InboundSa | OutboundSa, attempt: number, remote: RemotePod): Promise<void> {
    const key = saKey(sa);
    if (this.#held.has(key)) throw new HandshakeError('driver', `the peer chose the SPI ${sa.spi} a second time`);
    // Noted before it is there: should the driver never answer, it is removed all the same.
    const { direction, spi, peer, selectors } = sa;
    this.#hold(key, { direction, spi, peer, selectors, attempt });
    try {
      if (sa.direction === 'in') await this.#driver.installInbound(sa);
      else await this.#driver.installOutbound(sa);
    } catch (cause) {
      if (cause instanceof TunnelError && notInstalled.has(cause.code)) this.#letGo(key);
      throw new HandshakeError('driver', messageOf(cause), { cause });
    }
    if (sa.direction === 'in') await this.prove(remote);
  }

  /** Removes the SA if the tunnel has it. What only it proved is forgotten before its key is gone. */
  async remove(direction: SaDirection, spi: number, remote: RemotePod): Promise<void> {
    for (const [key, sa] of [...this.#held]) {
      if (sa.direction !== direction || sa.spi !== spi) continue;
      this.#letGo(key);
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
    for (const sa of [...this.#held.values()])
      if (sa.attempt === attempt) await this.remove(sa.direction, sa.spi, remote);
  }

  /** Whether the handshake has installed anything, or may have. */
  hasInstalled(attempt: number, direction?: SaDirection): boolean {
    for (const sa of this.#held.values())
      if (sa.attempt === attempt && (direction === undefined || sa.direction === direction)) return true;
    return false;
  }

  /** The driver has lost them all. */
  async lost(remote: RemotePod): Promise<void> {
    for (const { direction, spi } of this.#held.values()) if (direction === 'in') this.#spis.release(spi);
    for (const key of [...this.#held.keys()]) this.#letGo(key);
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
   */
  async move(to: { readonly address: IpAddress; readonly port?: number }): Promise<void> {
    for (const [key, sa] of [...this.#held]) {
      const peer = { address: to.address, port: to.port ?? sa.peer.port };
      if (sa.peer.address === peer.address && sa.peer.port === peer.port) continue;
      await this.#driver.movePeer(sa, peer);
      this.#letGo(key);
      const moved = { ...sa, peer };
      this.#hold(saKey(moved), moved);
    }
  }

  /** Tells the hooks which inbound SA is the newest now, if that has changed. */
  async prove(remote: RemotePod): Promise<void> {
    let newest: HeldSa | undefined;
    if (!this.#provesNothing) for (const sa of this.#held.values()) if (sa.direction === 'in') newest = sa;
    const last = this.#proof;
    if (newest?.spi === last?.spi) return;
    this.#proof = newest === undefined ? undefined : { spi: newest.spi, selectors: newest.selectors };
    if (newest === undefined) {
      for (const pair of last?.selectors ?? []) await this.#hooks.onForget(pair, last?.spi ?? 0);
      return;
    }
    const { pod, spiffeId } = remote;
    const { spi } = newest;
    for (const { local, remote: address } of newest.selectors) {
      const proof = { local, remote: address, remoteUid: pod.uid, remoteSpiffeId: spiffeId, spi };
      const done = this.#hooks.onProof(proof);
      if (done !== undefined) await done;
    }
  }

  #hold(key: string, sa: HeldSa & { readonly attempt: number }): void {
    this.#held.set(key, sa);
    this.#index.add(key);
  }

  #letGo(key: string): void {
    this.#held.delete(key);
    this.#index.delete(key);
  }
}
