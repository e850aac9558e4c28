import { closeSync, openSync } from 'node:fs';
import { isNamespace, namespaceId } from '../kernel/netns.ts';
import { CniError } from './cni/error.ts';

/**
 * A pod's network namespace held open, so that every step speaks of the same one whatever happens to its path.
 */
export class Sandbox {
  readonly #fd: number;

  /**
   * @param path What the runtime gave as CNI_NETNS.
   * @throws {CniError} `InvalidEnvironment` where it is no network namespace, or the node's own.
   */
  constructor(path: string) {
    const refuse = (why: string, cause?: unknown) =>
      new CniError('InvalidEnvironment', 'invalid CNI_NETNS', `CNI_NETNS is ${JSON.stringify(path)}: ${why}`, cause);
    try {
      this.#fd = openSync(path, 'r');
    } catch (error) {
      throw refuse(error instanceof Error ? error.message : String(error), error);
    }
    const own = () => namespaceId(this.path) === namespaceId('/proc/self/ns/net');
    const why = !isNamespace(this.path) ? 'not a namespace' : own() ? 'the node’s own network namespace' : undefined;
    if (why === undefined) return;
    this.close();
    throw refuse(why);
  }

  /** Valid for this process and its children until {@link close}. */
  get path(): string {
    return `/proc/${process.pid}/fd/${this.#fd}`;
  }

  close(): void {
    closeSync(this.#fd);
  }
}
