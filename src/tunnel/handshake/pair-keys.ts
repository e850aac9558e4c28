import { createHash, createHmac } from 'node:crypto';
import type { IpAddress } from '../../model/address.ts';
import type { SpiffeId } from '../../model/identity.ts';
import { keyLength, type SessionKeys, saltLength, splitKeys } from './keys.ts';

/** RFC 8446 section 7.5: what a node session's root secret is exported under, with an empty context. */
export const nodeExporterLabel = 'EXPERIMENTAL-myelin-node-v1';
/** As long as the output of the session's hash, SHA-384. */
export const rootLength = 48;
export const nonceLength = 32;

const hash = 'sha384';
const purpose = 'myelin-node/1 esp';

/** One side of a pair, as both sides name it. */
export interface PairEnd {
  readonly spiffeId: SpiffeId;
  readonly uid: string;
  /** In the order of the offer's selectors. */
  readonly addresses: readonly IpAddress[];
  /** Of packets to this side. */
  readonly spi: number;
  readonly nonce: Buffer;
}

/** RFC 5869 section 2.2. */
export function hkdfExtract(algorithm: string, salt: Uint8Array, secret: Uint8Array): Buffer {
  return createHmac(algorithm, salt).update(secret).digest();
}

/** RFC 5869 section 2.3. Node's own `hkdf` takes no `info` over 1 KiB, which two SPIFFE IDs can exceed. */
export function hkdfExpand(algorithm: string, key: Uint8Array, info: Uint8Array, length: number): Buffer {
  const blocks: Buffer[] = [];
  let previous = Buffer.alloc(0);
  for (let have = 0; have < length; have += previous.length) {
    const counter = Buffer.from([blocks.length + 1]);
    previous = createHmac(algorithm, key).update(previous).update(info).update(counter).digest();
    blocks.push(previous);
  }
  const all = Buffer.concat(blocks);
  for (const block of blocks) block.fill(0);
  const wanted = Buffer.from(all.subarray(0, length));
  all.fill(0);
  return wanted;
}

/**
 * Derives one pair's keys from the root secret of the two nodes' session (docs/TUNNELS.md, "Keys"). Both nonces are fresh,
 * so no derivation repeats another's keys; everything that names the pair, and all that was said about it, is in `info`.
 * @param offer Without its line feed, as sent; `answer` likewise.
 */
export function derivePairKeys(
  root: Uint8Array,
  ends: { readonly initiator: PairEnd; readonly responder: PairEnd },
  offer: string,
  answer: string,
): SessionKeys {
  const { initiator, responder } = ends;
  const key = hkdfExtract(hash, Buffer.concat([initiator.nonce, responder.nonce]), root);
  const transcript = createHash(hash).update(`${offer}\n${answer}\n`).digest();
  const direction = (name: string) => {
    const info = pairInfo(name, initiator, responder, transcript);
    const material = hkdfExpand(hash, key, info, keyLength + saltLength);
    const keys = splitKeys(material, 0);
    material.fill(0);
    return keys;
  };
  const keys = { initiatorToResponder: direction('i2r'), responderToInitiator: direction('r2i') };
  key.fill(0);
  return keys;
}

/** Every field is preceded by its length (two bytes, most significant first): no two lists of fields read the same. */
function pairInfo(direction: string, initiator: PairEnd, responder: PairEnd, transcript: Buffer): Buffer {
  const spi = (value: number) => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(value);
    return bytes;
  };
  const fields = [
    Buffer.from(purpose),
    Buffer.from(direction),
    Buffer.from(initiator.spiffeId),
    Buffer.from(responder.spiffeId),
    Buffer.from(initiator.uid),
    Buffer.from(responder.uid),
    Buffer.from(initiator.addresses.join()),
    Buffer.from(responder.addresses.join()),
    spi(initiator.spi),
    spi(responder.spi),
    transcript,
  ];
  return Buffer.concat(
    fields.flatMap((field) => {
      const length = Buffer.alloc(2);
      length.writeUInt16BE(field.length);
      return [length, field];
    }),
  );
}
