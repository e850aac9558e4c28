import type { TypedMap } from './typed-map.ts';

/** Writes to several maps that are undone together where one of them fails. */
export class Transaction {
  readonly #undo: (() => void)[] = [];

  /** Writes an entry, new or not. @throws {KernelError} `Errno` */
  put<K, V>(map: TypedMap<K, V>, key: K, value: V): void {
    const before = map.get(key);
    map.set(key, value);
    this.#undo.push(() => (before === undefined ? map.delete(key) : map.set(key, before)));
  }

  /** Writes many entries whose keys are not there yet. @throws {KernelError} `Errno` */
  add<K, V>(map: TypedMap<K, V>, entries: readonly (readonly [K, V])[]): void {
    const { done, error } = map.setMany(entries);
    this.#undo.push(() => {
      for (const [key] of entries.slice(0, done)) map.delete(key);
    });
    if (error !== undefined) throw error;
  }

  /** Deletes an entry, if it is there. @throws {KernelError} `Errno` */
  remove<K, V>(map: TypedMap<K, V>, key: K): void {
    const before = map.get(key);
    if (before === undefined) return;
    map.delete(key);
    this.#undo.push(() => map.set(key, before));
  }

  /**
   * Undoes everything, the last first; a step that cannot be undone does not keep the others.
   * @returns What went wrong while undoing.
   */
  rollback(): readonly unknown[] {
    const failures: unknown[] = [];
    for (const undo of this.#undo.splice(0).reverse()) {
      try {
        undo();
      } catch (error) {
        failures.push(error);
      }
    }
    return failures;
  }
}
