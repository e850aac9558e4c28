import type { IpAddress } from '../model/address.ts';
import type { IdentityNumber } from '../model/identity.ts';
import type { Tunnel, TunnelKey } from './layouts.ts';
import type { DatapathMaps } from './objects.ts';
import type { Transaction } from './transaction.ts';

/** What a handshake proved of whoever sends from `remote` to `local` through an inbound security association. */
export interface TunnelProof {
  readonly identity: IdentityNumber;
  /** Of the inbound security association. */
  readonly spi: number;
}

/** Who the pod at the other end of a proven tunnel is in a new revision; undefined: nobody that is known any more. */
export type TunnelIdentity = (local: IpAddress, remote: IpAddress) => IdentityNumber | undefined;

/** Owner of the map `tunnel_in`: a packet out of a tunnel passes only if its inner addresses are a proven pair. */
export class TunnelTable {
  readonly #map: DatapathMaps['tunnels'];
  #count: number;

  constructor(maps: Pick<DatapathMaps, 'tunnels'>) {
    this.#map = maps.tunnels;
    this.#count = this.all().length;
  }

  /** How many pairs are admitted. */
  get size(): number {
    return this.#count;
  }

  /**
   * Admits a pair of inner addresses. With a new SPI, the one before stays good beside it, for packets under way.
   * @throws {KernelError} `Errno` where the map is full: the pair is not admitted
   */
  prove(local: IpAddress, remote: IpAddress, proof: TunnelProof): void {
    const before = this.#map.get({ local, remote });
    const rekeyed = before !== undefined && before.spi !== proof.spi;
    const previousSpi = rekeyed ? before.spi : (before?.previousSpi ?? 0);
    this.#map.set({ local, remote }, { ...proof, previousSpi });
    if (before === undefined) this.#count++;
  }

  /** @returns Whether the pair was admitted. */
  forget(local: IpAddress, remote: IpAddress): boolean {
    const there = this.#map.delete({ local, remote });
    if (there) this.#count--;
    return there;
  }

  /** Forgets every pair of a local address, whose pod goes. */
  forgetLocal(local: IpAddress): void {
    for (const [key] of this.all()) if (key.local === local) this.forget(key.local, key.remote);
  }

  all(): (readonly [TunnelKey, Tunnel])[] {
    return [...this.#map.entries()];
  }

  /** Gives proven tunnels new identities, those for which `when` says so. */
  identify(
    transaction: Transaction,
    identityOf: TunnelIdentity,
    when: (identity: IdentityNumber | undefined) => boolean,
  ) {
    const all = this.all();
    // Undone, what is removed here is there again: what is counted is what there was the last time.
    this.#count = all.length;
    for (const [key, tunnel] of all) {
      const identity = identityOf(key.local, key.remote);
      if (identity === tunnel.identity || !when(identity)) continue;
      if (identity === undefined) transaction.remove(this.#map, key);
      else transaction.put(this.#map, key, { ...tunnel, identity });
    }
  }
}

/** Owner of the map `tunnel_out`: pairs whose packets the kernel's own ESP carries, and the device that leads to it. */
export class PathTable {
  readonly #map: DatapathMaps['tunnelPaths'];
  #count: number;

  constructor(maps: Pick<DatapathMaps, 'tunnelPaths'>) {
    this.#map = maps.tunnelPaths;
    this.#count = this.all().length;
  }

  /** How many paths are open. */
  get size(): number {
    return this.#count;
  }

  /** @throws {KernelError} `Errno` where the map is full: the pair's packets go on being held */
  open(local: IpAddress, remote: IpAddress, ifindex: number): void {
    const there = this.#map.get({ local, remote }) !== undefined;
    this.#map.set({ local, remote }, ifindex);
    if (!there) this.#count++;
  }

  /** @returns Whether it was open. */
  close(local: IpAddress, remote: IpAddress): boolean {
    const there = this.#map.delete({ local, remote });
    if (there) this.#count--;
    return there;
  }

  /** Closes every path of a local address, whose pod goes. */
  forgetLocal(local: IpAddress): void {
    for (const key of this.all()) if (key.local === local) this.close(key.local, key.remote);
  }

  all(): TunnelKey[] {
    return [...this.#map.entries()].map(([key]) => key);
  }
}
