import { createHash } from 'node:crypto';
import { HandshakeError } from './error.ts';
import { encodeChain } from './pair-messages.ts';

/** A pod's certificates as they are shown within a node session: once, and then named by their digest. */
export interface ShownChain {
  /** DER, leaf first, without the root. */
  readonly presented: readonly Buffer[];
  /** {@link chainDigest} of them. */
  readonly digest: string;
}

/** So many chains one side shows in a session before it wants another; its peer remembers twice as many. */
const mostShown = 512;
const mostRemembered = 2 * mostShown;
/** Bytes of DER: four certificates of pods and their CAs are far below. */
const longestChain = 16_384;

/**
 * @returns SHA-256, as a string of bytes, over all certificates, each preceded by its length (four bytes, most significant first). The
 *   pair's transcript has this in place of the certificates.
 */
export function chainDigest(presented: readonly Buffer[]): string {
  const hash = createHash('sha256');
  for (const der of presented) {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(der.length);
    hash.update(length).update(der);
  }
  return hash.digest('binary');
}

export function shownChain(presented: readonly Buffer[]): ShownChain {
  return { presented, digest: chainDigest(presented) };
}

/** Which chains the two sides of a node session have shown each other. */
export class ShownChains {
  readonly #ours = new Set<string>();
  readonly #theirs = new Map<string, ShownChain>();

  /** Whether this side had better begin another session. */
  get isFull(): boolean {
    return this.#ours.size >= mostShown;
  }

  /** @returns What is to be said before a message names the chain: nothing where it was said before. */
  introduce({ presented, digest }: ShownChain): string | undefined {
    if (this.#ours.has(digest)) return undefined;
    this.#ours.add(digest);
    return encodeChain(presented);
  }

  /** The peer shows one. @throws {HandshakeError} `bad-message` where it is too long, or they are too many */
  take(presented: readonly Buffer[]): void {
    const chain = shownChain(presented);
    if (this.#theirs.has(chain.digest)) return;
    if (chain.presented.reduce((sum, { length }) => sum + length, 0) > longestChain)
      throw new HandshakeError('bad-message', `a chain of over ${longestChain} bytes`);
    if (this.#theirs.size >= mostRemembered)
      throw new HandshakeError('bad-message', `over ${mostRemembered} chains in one session`);
    this.#theirs.set(chain.digest, chain);
  }

  /** @returns The chain that the peer's message names. @throws {HandshakeError} `missing` where it was never shown */
  find(digest: string): ShownChain {
    const chain = this.#theirs.get(digest);
    if (chain === undefined) throw new HandshakeError('missing', 'a chain that was not shown in this session');
    return chain;
  }
}
