import type { Logger } from 'pino';
import type { EndpointManager } from '../endpoint/manager.ts';
import { MtuTable } from '../kernel/path-mtu.ts';
import type { OpenDriver } from './driver.ts';
import { podMtuOver } from './node-setup.ts';
import { PathMtu } from './path-mtu.ts';
import type { NodeProxy } from './proxy/proxy.ts';
import { Serial } from './serial.ts';

export interface MtuWatchDeps {
  readonly driver: OpenDriver;
  readonly endpoints: EndpointManager;
  readonly proxy: Pick<NodeProxy, 'setMtu'>;
  readonly logger: Logger;
}

/** Looks how large packets of the underlay may be whenever there is a reason to, and tells the driver, the proxy, and the pods to come. */
export class MtuWatch {
  readonly #table = new MtuTable();
  readonly #pathMtu: PathMtu;
  readonly #driver: OpenDriver['driver'];
  readonly #looks: Serial;

  /** @param most What the operator says that the underlay takes, where that is less than the device's. */
  constructor(uplinkIfindex: number, most: number | undefined, { driver, endpoints, proxy, logger }: MtuWatchDeps) {
    const table = this.#table;
    const pathMtu = new PathMtu(most, {
      source: { device: () => table.ofDevice(uplinkIfindex), paths: () => table.ofPaths() },
      limit: (address, mtu) => driver.limitPath(address, mtu),
      onDevice: async (mtu) => {
        endpoints.setMtu(podMtuOver(mtu));
        await driver.raiseMtu(podMtuOver(mtu));
        await proxy.setMtu(podMtuOver(mtu));
      },
      logger,
    });
    this.#pathMtu = pathMtu;
    this.#driver = driver.driver;
    this.#looks = new Serial(() => pathMtu.look(), logger);
  }

  /** Looks for the first time. */
  async start(): Promise<void> {
    await this.#looks.start();
    this.#driver.on('up', () => {
      this.#pathMtu.forget();
      this.look();
    });
    this.#driver.on('drop', ({ reason }) => {
      if (reason === 'TOO_BIG') this.look();
    });
  }

  look(): void {
    this.#looks.schedule();
  }

  close(): void {
    this.#table.close();
  }
}
