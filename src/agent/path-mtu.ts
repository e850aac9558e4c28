import type { Logger } from 'pino';
import type { IpAddress } from '../model/address.ts';

/** What is known of how large packets of the underlay may be. */
export interface MtuSource {
  /** Of the uplink. */
  device(): number;
  /** Of the ways to single addresses, as routers said. */
  paths(): ReadonlyMap<IpAddress, number>;
}

export interface PathMtuDeps {
  readonly source: MtuSource;
  /** Tells the driver; an absent address means all others, 0 no limit. */
  readonly limit: (address: IpAddress | undefined, mtu: number) => Promise<void>;
  /** The uplink's has changed. */
  readonly onDevice: (mtu: number) => Promise<void>;
  readonly logger: Logger;
}

/**
 * What routers say of a path is believed down to here: an ICMP error can be forged by anybody, and below this a pod's
 * packet of 1,280 bytes, which IPv6 has to carry whole (RFC 8200 section 5), would not fit any more. A path that really
 * is narrower has to be named by the operator (`--underlay-mtu`).
 */
export const leastBelievedMtu = 1376;

/**
 * Follows how large packets of the underlay may be: the uplink's MTU, and what routers on the way said. Packets that do not
 * fit are then cut or their senders told, by the driver; and new pods get a device that fits.
 */
export class PathMtu {
  readonly #deps: PathMtuDeps;
  readonly #most: number | undefined;
  #device = 0;
  #paths = new Map<IpAddress, number>();

  /** @param most What the operator says that the underlay takes, where that is less than the device's. */
  constructor(most: number | undefined, deps: PathMtuDeps) {
    this.#most = most;
    this.#deps = deps;
  }

  /** Looks, and tells what has changed. @throws what the driver or the kernel says; the next look then tells all of it again */
  async look(): Promise<void> {
    const { source, limit, onDevice, logger } = this.#deps;
    const device = Math.min(source.device(), this.#most ?? Number.POSITIVE_INFINITY);
    const paths = believed(source.paths(), device);
    try {
      if (device !== this.#device) {
        await limit(undefined, device);
        if (this.#device !== 0) logger.info({ was: this.#device, mtu: device }, 'the underlay’s MTU has changed');
        this.#device = device;
        await onDevice(device);
      }
      for (const [address, mtu] of paths)
        if (this.#paths.get(address) !== mtu) {
          await limit(address, mtu);
          logger.info({ address, mtu }, 'the way to a node takes smaller packets only');
        }
      for (const address of this.#paths.keys()) if (!paths.has(address)) await limit(address, 0);
      this.#paths = paths;
    } catch (error) {
      this.forget();
      throw error;
    }
  }

  /** The driver has lost what it was told. */
  forget(): void {
    this.#device = 0;
    this.#paths = new Map();
  }
}

/** What limits anything, raised to what is believed. */
function believed(said: ReadonlyMap<IpAddress, number>, device: number): Map<IpAddress, number> {
  const raised = [...said].map(([address, mtu]): [IpAddress, number] => [address, Math.max(mtu, leastBelievedMtu)]);
  return new Map(raised.filter(([, mtu]) => mtu < device));
}
