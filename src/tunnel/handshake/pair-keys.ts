import { hash } from 'node:crypto';
import type { SpiffeId } from '../../model/identity.ts';
import { keyLength, type SessionKeys, saltLength } from './keys.ts';
import { saltOf } from './pair-messages.ts';

/** RFC 8446 section 7.5: what a node session's root secret is exported under, with an empty context. */
export const nodeExporterLabel = 'EXPERIMENTAL-myelin-node-v3';
/** As long as the output of the hash that keys come out of. */
export const rootLength = 64;

const algorithm = 'sha512';
const digestLength = 64;
/** Of SHA-512 (FIPS 180-4). */
const block = 128;
const purpose = 'myelin-node/3 esp';
/** Two SPIFFE IDs at their longest, and all else, fit. */
const benchLength = 8192;

/** One side of a pair, as its certificate names it. */
export interface PairEnd {
  readonly spiffeId: SpiffeId;
  readonly uid: string;
}

/**
 * Derives pairs' keys from the root secret of two nodes' session: HKDF-Expand of RFC 5869 with SHA-512 (docs/TUNNELS.md,
 * "Keys"). The root comes out of TLS's own HKDF, uniformly random, so there is nothing to extract (section 3.3 there).
 *
 * HMAC (RFC 2104) is done by single calls of the hash: Node's own HMAC objects cost ten times what they compute on so
 * little. What depends on the root only is laid out once; Node's `hkdf` besides takes no `info` over 1 KiB, which two
 * SPIFFE IDs can exceed.
 */
export class PairKeySchedule {
  /** The root under each of HMAC's pads, and behind it the room for what is hashed with it. */
  readonly #inner = Buffer.alloc(benchLength, 0x36);
  readonly #outer = Buffer.alloc(block + digestLength, 0x5c);
  /** The beginnings of the inner bench, by length: of a few kinds, and dear to make anew. */
  readonly #views: (Buffer | undefined)[] = [];

  /** @param root 64 bytes, which are copied. */
  constructor(root: Uint8Array) {
    if (root.length !== rootLength) throw new RangeError(`a root of ${root.length} bytes`);
    for (const [i, byte] of root.entries()) {
      this.#inner[i] = 0x36 ^ byte;
      this.#outer[i] = 0x5c ^ byte;
    }
  }

  /**
   * Both keys are the one block of the hash. Each side's nonce gives the salt of what it sends: RFC 4106 section 4 wants
   * salts not to be known before they are chosen, and not to be secret. Both nonces are fresh, so no derivation repeats
   * another's keys; everything that names the pair, and all that was said about it, is in `info`.
   * @param offer As sent, type and body: a string of bytes, with addresses, SPI and nonce in it; `answer` likewise.
   */
  derive(initiator: PairEnd, responder: PairEnd, offer: string, answer: string): SessionKeys {
    let at = block;
    at = this.#field(purpose, at);
    at = this.#field(initiator.spiffeId, at);
    at = this.#field(responder.spiffeId, at);
    at = this.#field(initiator.uid, at);
    at = this.#field(responder.uid, at);
    at = this.#field(offer, at);
    at = this.#field(answer, at);
    this.#inner[at++] = 1;
    const inner = hash(algorithm, this.#view(at), 'buffer');
    inner.copy(this.#outer, block);
    inner.fill(0);
    const keys = hash(algorithm, this.#outer, 'buffer');
    this.#outer.fill(0, block);
    // Parts of one buffer, each of which its driver zeroes.
    return {
      initiatorToResponder: { key: keys.subarray(0, keyLength), salt: saltOf(offer, saltLength) },
      responderToInitiator: { key: keys.subarray(keyLength), salt: saltOf(answer, saltLength) },
    };
  }

  /** Zeroes what came out of the root. */
  wipe(): void {
    this.#inner.fill(0);
    this.#outer.fill(0);
  }

  /** Every field is preceded by its length (two bytes, most significant first): no two lists of fields read the same. */
  #field(text: string, at: number): number {
    const end = at + 2 + text.length;
    // All of it is ASCII, or bytes. One byte is left for the block's number.
    if (end >= benchLength) throw new RangeError('names that are too long to derive keys for');
    this.#inner[at] = text.length >> 8;
    this.#inner[at + 1] = text.length & 255;
    this.#inner.write(text, at + 2, 'latin1');
    return end;
  }

  #view(length: number): Buffer {
    let view = this.#views[length];
    if (view === undefined) {
      view = this.#inner.subarray(0, length);
      this.#views[length] = view;
    }
    return view;
  }
}
