import type { IpAddress } from '../../model/address.ts';
import { proxyModes } from '../layouts.ts';
import type { DatapathMaps } from '../objects.ts';

/** `always`: what is spoken there is not HTTP/1.1, the proxy reads it. `never`: only the kernel may. */
export type ProxyMode = keyof typeof proxyModes;

/** A port of an endpoint whose requests are not read by whoever can. */
export interface ProxyPort {
  /** The endpoint's id. */
  readonly endpoint: number;
  readonly port: number;
  readonly mode: ProxyMode;
}

/** Somebody whose requests to an endpoint's port the kernel could not all answer, and the proxy can. */
export interface ProxyClient {
  /** The endpoint's id. */
  readonly endpoint: number;
  readonly port: number;
  readonly remote: IpAddress;
}

/**
 * Owner of the maps `proxy_ports` and `proxy_clients`, which the datapath adds to: a port that HTTP/2 came to becomes
 * `always`; who was reset because a denial would have had to wait for other answers is the proxy's for an hour.
 */
export class ProxyPorts {
  readonly #map: DatapathMaps['proxyPorts'];
  readonly #clients: DatapathMaps['proxyClients'];

  constructor(maps: Pick<DatapathMaps, 'proxyPorts' | 'proxyClients'>) {
    this.#map = maps.proxyPorts;
    this.#clients = maps.proxyClients;
  }

  /** Those that were noted, also before this process, and some whose hour is over. */
  clients(): ProxyClient[] {
    return [...this.#clients.entries()].map(([{ endpoint, port, remote }]) => ({ endpoint, port, remote }));
  }

  /** @param mode Undefined: whoever can read it may, the kernel first. @throws {KernelError} `Errno` where the map is full */
  set(endpoint: number, port: number, mode: ProxyMode | undefined): void {
    if (mode === undefined) this.#map.delete({ endpoint, port });
    else this.#map.set({ endpoint, port }, proxyModes[mode]);
  }

  /** Everything that was set or learnt, also by an earlier process. */
  all(): ProxyPort[] {
    return [...this.#map.entries()].map(([{ endpoint, port }, mode]) => ({
      endpoint,
      port,
      mode: mode === proxyModes.never ? 'never' : 'always',
    }));
  }

  /** Forgets the endpoints that nobody can reach any more. */
  keepOnly(isLive: (endpoint: number) => boolean): void {
    for (const { endpoint, port } of this.all()) if (!isLive(endpoint)) this.#map.delete({ endpoint, port });
    for (const client of this.clients()) if (!isLive(client.endpoint)) this.#clients.delete(client);
  }
}
