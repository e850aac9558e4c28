import { hash } from 'node:crypto';
import type { IpAddress } from '../../model/address.ts';
import type { SpiffeId } from '../../model/identity.ts';
import { type DirectionKeys, keyLength, type SessionKeys, saltLength } from './keys.ts';

/** RFC 8446 section 7.5: what a node session's root secret is exported under, with an empty context. */
export const nodeExporterLabel = 'EXPERIMENTAL-myelin-node-v2';
/** As long as the output of the hash that keys come out of. */
export const rootLength = 64;
export const nonceLength = 32;

const algorithm = 'sha512';
const purpose = 'myelin-node/2 esp';

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
const blockLengths = { sha1: 64, sha256: 64, sha512: 128 } as const;
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

/** RFC 5869 section 2.3. Node's own `hkdf` takes no `info` over 1 KiB, which two SPIFFE IDs can exceed. */
export function hkdfExpand(name: Algorithm, key: Uint8Array, info: Uint8Array, length: number): Buffer {
  const first = hmac(name, key, info, Uint8Array.of(1));
  if (first.length >= length) return first.subarray(0, length);
  const wanted = Buffer.alloc(length);
  let previous = first;
  let have = first.copy(wanted);
  for (let n = 2; have < length; n++) {
    const next = hmac(name, key, previous, info, Uint8Array.of(n));
    have += next.copy(wanted, have);
    previous.fill(0);
    previous = next;
  }
  previous.fill(0);
  return wanted;
}

/**
 * Derives one pair's keys from the root secret of the two nodes' session (docs/TUNNELS.md, "Keys"). The root comes out of
 * TLS's own HKDF, uniformly random, so there is nothing to extract (RFC 5869 section 3.3). Both nonces are fresh, so no
 * derivation repeats another's keys; everything that names the pair, and all that was said about it, is in `info`.
 *
 * Both keys are one block of the hash. Salts are of the transcript: RFC 4106 section 4 wants them not to be known before the
 * key is chosen, and not to be secret.
 * @param offer Without its line feed, as sent; `answer` likewise.
 */
export function derivePairKeys(
  root: Uint8Array,
  ends: { readonly initiator: PairEnd; readonly responder: PairEnd },
  offer: string,
  answer: string,
): SessionKeys {
  const { initiator, responder } = ends;
  const transcript = hash(algorithm, `${offer}\n${answer}\n`, 'binary');
  const keys = hkdfExpand(algorithm, root, pairInfo(initiator, responder, transcript), 2 * keyLength);
  // Parts of one buffer, each of which its driver zeroes.
  const direction = (n: number): DirectionKeys => ({
    key: keys.subarray(n * keyLength, (n + 1) * keyLength),
    salt: Buffer.from(transcript.slice(n * saltLength, (n + 1) * saltLength), 'latin1'),
  });
  return { initiatorToResponder: direction(0), responderToInitiator: direction(1) };
}

/**
 * Every field is preceded by its length (two bytes, most significant first): no two lists of fields read the same.
 * @param transcript A string of bytes.
 */
function pairInfo(initiator: PairEnd, responder: PairEnd, transcript: string): Buffer {
  // All of it is ASCII, or bytes.
  const fields = [
    purpose,
    initiator.spiffeId,
    responder.spiffeId,
    initiator.uid,
    responder.uid,
    initiator.addresses.join(),
    responder.addresses.join(),
    transcript,
  ];
  let length = 2 * (2 + 4) + 2 * (2 + nonceLength);
  for (const field of fields) length += 2 + field.length;
  const info = Buffer.allocUnsafe(length);
  let at = 0;
  for (const field of fields) {
    at = info.writeUInt16BE(field.length, at);
    at += info.write(field, at, 'latin1');
  }
  for (const { spi, nonce } of [initiator, responder]) {
    at = info.writeUInt16BE(4, at);
    at = info.writeUInt32BE(spi, at);
    at = info.writeUInt16BE(nonceLength, at);
    at += nonce.copy(info, at, 0, nonceLength);
  }
  return info;
}
