import { hash } from 'node:crypto';
import type { IpAddress } from '../../model/address.ts';
import type { SpiffeId } from '../../model/identity.ts';
import { type DirectionKeys, keyLength, type SessionKeys, saltLength } from './keys.ts';

/** RFC 8446 section 7.5: what a node session's root secret is exported under, with an empty context. */
export const nodeExporterLabel = 'EXPERIMENTAL-myelin-node-v1';
/** As long as the output of the session's hash, SHA-384. */
export const rootLength = 48;
export const nonceLength = 32;

const algorithm = 'sha384';
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

/** The block of the hash, bytes (FIPS 180-4). */
const blockLengths = { sha1: 64, sha256: 64, sha384: 128 } as const;
type Algorithm = keyof typeof blockLengths;

/** Where keys and messages are laid side by side; zeroed after each use. Buffers of their own would cost more than the hash. */
const bench = Buffer.alloc(8192);

/** RFC 2104, by single calls: Node's own HMAC objects cost ten times what they compute on so little. */
function hmac(name: Algorithm, key: Uint8Array, ...parts: readonly Uint8Array[]): Buffer {
  const block = blockLengths[name];
  const short = key.length > block ? hash(name, key, 'buffer') : key;
  const inner = keyed(name, short, 0x36, parts);
  const code = keyed(name, short, 0x5c, [inner]);
  inner.fill(0);
  return code;
}

function keyed(name: Algorithm, key: Uint8Array, pad: number, parts: readonly Uint8Array[]): Buffer {
  const block = blockLengths[name];
  const length = parts.reduce<number>((sum, part) => sum + part.length, block);
  const space = length <= bench.length ? bench : Buffer.alloc(length);
  space.fill(pad, 0, block);
  for (let i = 0; i < key.length; i++) space[i] = pad ^ (key[i] ?? 0);
  let at = block;
  for (const part of parts) {
    space.set(part, at);
    at += part.length;
  }
  const digest = hash(name, space.subarray(0, length), 'buffer');
  space.fill(0, 0, length);
  return digest;
}

/** RFC 5869 section 2.2. */
export function hkdfExtract(name: Algorithm, salt: Uint8Array, secret: Uint8Array): Buffer {
  return hmac(name, salt, secret);
}

/** RFC 5869 section 2.3. Node's own `hkdf` takes no `info` over 1 KiB, which two SPIFFE IDs can exceed. */
export function hkdfExpand(name: Algorithm, key: Uint8Array, info: Uint8Array, length: number): Buffer {
  const wanted = Buffer.alloc(length);
  let previous: Buffer | undefined;
  for (let have = 0, n = 1; have < length; n++) {
    const next: Buffer = hmac(name, key, ...(previous === undefined ? [] : [previous]), info, Uint8Array.of(n));
    have += next.copy(wanted, have);
    previous?.fill(0);
    previous = next;
  }
  previous?.fill(0);
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
  const key = hkdfExtract(algorithm, Buffer.concat([initiator.nonce, responder.nonce]), root);
  const transcript = hash(algorithm, `${offer}\n${answer}\n`, 'buffer');
  const direction = (name: string): DirectionKeys => {
    const info = pairInfo(name, initiator, responder, transcript);
    const material = hkdfExpand(algorithm, key, info, keyLength + saltLength);
    return { key: material.subarray(0, keyLength), salt: material.subarray(keyLength) };
  };
  const keys = { initiatorToResponder: direction('i2r'), responderToInitiator: direction('r2i') };
  key.fill(0);
  return keys;
}

/** Every field is preceded by its length (two bytes, most significant first): no two lists of fields read the same. */
function pairInfo(direction: string, initiator: PairEnd, responder: PairEnd, transcript: Buffer): Buffer {
  const fields = [
    purpose,
    direction,
    initiator.spiffeId,
    responder.spiffeId,
    initiator.uid,
    responder.uid,
    initiator.addresses.join(),
    responder.addresses.join(),
  ];
  // All of it is ASCII.
  const info = Buffer.allocUnsafe(fields.reduce((sum, field) => sum + 2 + field.length, 2 * 6 + 2 + transcript.length));
  let at = 0;
  for (const field of fields) {
    at = info.writeUInt16BE(field.length, at);
    at += info.write(field, at, 'latin1');
  }
  for (const spi of [initiator.spi, responder.spi]) {
    at = info.writeUInt16BE(4, at);
    at = info.writeUInt32BE(spi, at);
  }
  at = info.writeUInt16BE(transcript.length, at);
  transcript.copy(info, at);
  return info;
}
