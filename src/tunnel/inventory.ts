import type { InstalledSa, SaId, TunnelDriver } from './driver.ts';
import { saKey } from './sa-ledger.ts';

/** How long one listing answers who asks whether an SA is used. */
const freshMs = 1000;

/** What a driver holds, by {@link saKey}. */
export class Inventory {
  readonly #driver: TunnelDriver;
  readonly #now: () => number;
  #last: { readonly at: number; readonly sas: Promise<ReadonlyMap<string, InstalledSa>> } | undefined;

  constructor(driver: TunnelDriver, now: () => number) {
    this.#driver = driver;
    this.#now = now;
  }

  /** As it is now. @throws {TunnelError} */
  async installed(): Promise<ReadonlyMap<string, InstalledSa>> {
    return new Map((await this.#driver.list()).map((sa) => [saKey(sa), sa]));
  }

  /** Whether one of the SAs has carried a packet. Many pairs that ask at once cost one listing. @throws {TunnelError} */
  async isUsed(sas: readonly SaId[]): Promise<boolean> {
    const now = this.#now();
    if (this.#last === undefined || now - this.#last.at > freshMs) this.#last = { at: now, sas: this.installed() };
    const installed = await this.#last.sas;
    return sas.some((sa) => (installed.get(saKey(sa))?.statistics.packets ?? 0) > 0);
  }
}
