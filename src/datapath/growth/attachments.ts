import { attachTc, type TcDirection } from '../../kernel/bpf/tc.ts';
import { KernelError } from '../../kernel/error.ts';
import type { DatapathObjects, ProgramName } from '../objects.ts';

interface Place {
  readonly name: ProgramName;
  readonly ifindex: number;
  readonly direction: TcDirection;
}

/** Which program is at which device: so that all of them can be replaced. */
export class Attachments {
  readonly #programs: () => DatapathObjects['programs'];
  readonly #places = new Map<string, Place>();
  /** Where an older process's program is to stay for the time being. */
  readonly #deferred = new Set<string>();

  /** @param programs Those that are attached from now on. */
  constructor(programs: () => DatapathObjects['programs']) {
    this.#programs = programs;
  }

  /**
   * @param deferred Not now, but when `enforce` is called.
   * @throws {KernelError} `Errno`
   */
  attach(name: ProgramName, ifindex: number, direction: TcDirection, deferred = false): void {
    const key = `${ifindex} ${direction}`;
    if (!deferred) attachTc(this.#programs()[name], ifindex, direction);
    this.#places.set(key, { name, ifindex, direction });
    if (deferred) this.#deferred.add(key);
    else this.#deferred.delete(key);
  }

  /** Attaches what was deferred. @throws {KernelError} `Errno` */
  enforce(): void {
    for (const key of this.#deferred) {
      const place = this.#places.get(key);
      if (place !== undefined) attachTc(this.#programs()[place.name], place.ifindex, place.direction);
      this.#deferred.delete(key);
    }
  }

  /** A device that nobody is behind any more: what is attached to it stays as it is, and knows no endpoint. */
  forget(ifindex: number): void {
    for (const direction of ['ingress', 'egress'] as const) {
      this.#places.delete(`${ifindex} ${direction}`);
      this.#deferred.delete(`${ifindex} ${direction}`);
    }
  }

  /**
   * Puts the programs as they are now in the place of those before, device by device, each in one step.
   * @param onEach Called after each.
   * @throws {KernelError} `Errno`: some are replaced and some are not; it may be called again
   */
  replace(onEach: () => void): void {
    for (const [key, { name, ifindex, direction }] of this.#places) {
      if (this.#deferred.has(key)) continue;
      try {
        attachTc(this.#programs()[name], ifindex, direction);
      } catch (error) {
        // The device has gone, and its packets with it.
        if (!(error instanceof KernelError) || error.errno !== 'ENODEV') throw error;
        this.#places.delete(key);
      }
      onEach();
    }
  }
}
