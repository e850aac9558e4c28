import { proxyModes } from './layouts.ts';
import type { DatapathMaps } from './objects.ts';

/** `always`: what is spoken there is not HTTP/1.1, the proxy reads it. `never`: only the kernel may. */
export type ProxyMode = keyof typeof proxyModes;

/** A port of an endpoint whose requests are not read by whoever can. */
export interface ProxyPort {
  /** The endpoint's id. */
  readonly endpoint: number;
  readonly port: number;
  readonly mode: ProxyMode;
}

/** Owner of the map `proxy_ports`, which the datapath adds to: a port that HTTP/2 came to becomes `always`. */
export class ProxyPorts {
  readonly #map: DatapathMaps['proxyPorts'];

  constructor(maps: Pick<DatapathMaps, 'proxyPorts'>) {
    this.#map = maps.proxyPorts;
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
  }
}
