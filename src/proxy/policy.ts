import { firstFreeIdentity, type IdentityNumber } from '../model/identity.ts';
import type { ProxyImage } from '../policy/proxy/image.ts';
import { candidates, type Judge, type ProxiedConnection } from '../policy/proxy/judge.ts';

/**
 * The class of peers that the end of a connection is of that is not on this node. It stays what it is while numbers of
 * identities change: with policy, and with every start of the agent.
 */
export interface PeerClass {
  /** As images have it; undefined for those whose number never changes: the node, other nodes, the world. */
  readonly key: string | undefined;
}

interface Numbers {
  readonly classOf: ReadonlyMap<IdentityNumber, string>;
  readonly numberOf: ReadonlyMap<string, IdentityNumber>;
}

/**
 * The policy in force: the image that the agent said last. It stays in force when the agent goes; before the first one
 * there is nothing to judge by.
 */
export class PolicyInForce {
  #image: ProxyImage | undefined;
  #revision = 0;
  /** Of this image and the one before: a connection may have been opened under that. */
  #numbers: readonly Numbers[] = [];
  readonly #listeners = new Set<() => void>();

  /** 0 before the first image. */
  get revision(): number {
    return this.#revision;
  }

  /** Whoever listens hears of it before anything else is judged. */
  take(revision: number, image: ProxyImage): void {
    this.#image = image;
    this.#revision = revision;
    const numberOf = new Map(image.identities.map(([number, key]) => [key, number] as const));
    this.#numbers = [{ classOf: new Map(image.identities), numberOf }, ...this.#numbers.slice(0, 1)];
    for (const listener of [...this.#listeners]) listener();
  }

  /** @returns Undefined where neither image knows the number: it is newer, or much older. */
  classOf({ identity }: ProxiedConnection): PeerClass | undefined {
    if (identity < firstFreeIdentity) return { key: undefined };
    for (const { classOf } of this.#numbers) {
      const key = classOf.get(identity);
      if (key !== undefined) return { key };
    }
    return undefined;
  }

  /** @returns Undefined before the first image, and where there are no such peers any more. */
  judgeFor(connection: ProxiedConnection, { key }: PeerClass): Judge | undefined {
    const image = this.#image;
    const identity = key === undefined ? connection.identity : this.#numbers[0]?.numberOf.get(key);
    return image === undefined || identity === undefined ? undefined : candidates(image, { ...connection, identity });
  }

  /** @returns How to stop listening. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
