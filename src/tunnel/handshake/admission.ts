/** How much of the handshake port anybody may take. */
export interface AdmissionLimits {
  /** Connections open at once. Defaults: 512 in all, 128 from one address, 32 from all addresses that are no node's. */
  readonly total?: number;
  readonly perAddress?: number;
  readonly strangers?: number;
  /** New connections in a second from all addresses that are no node's: what they may cost in computing. Default 50. */
  readonly strangersPerSecond?: number;
}

/** Who may connect, decided before anything is read or computed. Remembers nothing of who is gone. */
export class Admission {
  readonly #limits: Required<AdmissionLimits>;
  readonly #now: () => number;
  readonly #perAddress = new Map<string, number>();
  #open = 0;
  #strangers = 0;
  /** Of strangers, and when it was counted. */
  #allowance: { readonly left: number; readonly at: number };

  /** @param now Milliseconds, of any clock. */
  constructor(limits: AdmissionLimits, now: () => number) {
    const { total = 512, perAddress = 128, strangers = 32, strangersPerSecond = 50 } = limits;
    this.#limits = { total, perAddress, strangers, strangersPerSecond };
    this.#now = now;
    this.#allowance = { left: strangersPerSecond, at: now() };
  }

  get open(): number {
    return this.#open;
  }

  /** @returns Gives the place back; calling it again does nothing. Undefined: there is none. */
  enter(address: string, stranger: boolean): (() => void) | undefined {
    const { total, perAddress, strangers } = this.#limits;
    const fromAddress = this.#perAddress.get(address) ?? 0;
    if (this.#open >= total || fromAddress >= perAddress) return undefined;
    if (stranger && (this.#strangers >= strangers || !this.#allow())) return undefined;
    this.#open++;
    this.#perAddress.set(address, fromAddress + 1);
    if (stranger) this.#strangers++;
    let inside = true;
    return () => {
      if (!inside) return;
      inside = false;
      this.#open--;
      const left = (this.#perAddress.get(address) ?? 1) - 1;
      if (left === 0) this.#perAddress.delete(address);
      else this.#perAddress.set(address, left);
      if (stranger) this.#strangers--;
    };
  }

  /** A bucket that fills by so many a second and holds as many. */
  #allow(): boolean {
    const { strangersPerSecond } = this.#limits;
    const now = this.#now();
    const gained = (Math.max(0, now - this.#allowance.at) / 1000) * strangersPerSecond;
    const left = Math.min(strangersPerSecond, this.#allowance.left + gained);
    this.#allowance = { left: left < 1 ? left : left - 1, at: now };
    return left >= 1;
  }
}
