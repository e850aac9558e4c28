import { createHash } from 'node:crypto';

/** RFC 8446 section 7.5; the prefix marks a label that IANA has not registered (RFC 5705 section 4). */
export const exporterLabel = 'EXPERIMENTAL-myelin-esp-v1';
/** AES-256, and the four bytes of salt that RFC 4106 section 4 wants. */
export const keyLength = 32;
export const saltLength = 4;

/** What seals one direction. Both are buffers of their own, which the driver zeroes. */
export interface DirectionKeys {
  readonly key: Buffer;
  readonly salt: Buffer;
}

export interface SessionKeys {
  readonly initiatorToResponder: DirectionKeys;
  readonly responderToInitiator: DirectionKeys;
}

/** The part of a TLS connection that keys come from. */
export interface Exporter {
  exportKeyingMaterial(length: number, label: string, context: Buffer): Buffer | Promise<Buffer>;
}

/**
 * Derives both directions' keys from the TLS session and from what was said in it: a session gives other keys for
 * another exchange, and an exchange gives other keys in another session.
 * The context is SHA-256 of the two lines as they were sent, line feeds included.
 * @param offer Without its line feed; `answer` likewise.
 */
export async function deriveKeys(exporter: Exporter, offer: string, answer: string): Promise<SessionKeys> {
  const context = createHash('sha256').update(`${offer}\n${answer}\n`).digest();
  const material = await exporter.exportKeyingMaterial(2 * (keyLength + saltLength), exporterLabel, context);
  const half = keyLength + saltLength;
  const keys = {
    initiatorToResponder: splitKeys(material, 0),
    responderToInitiator: splitKeys(material, half),
  };
  material.fill(0);
  return keys;
}

/** One direction's 36 bytes of keying material, as buffers of their own: key, then salt. */
function splitKeys(material: Buffer, offset: number): DirectionKeys {
  const take = (start: number, length: number) => {
    const part = Buffer.alloc(length);
    material.copy(part, 0, start, start + length);
    return part;
  };
  return { key: take(offset, keyLength), salt: take(offset + keyLength, saltLength) };
}

/** Zeroes what no driver took. */
export function wipeKeys({ initiatorToResponder, responderToInitiator }: SessionKeys): void {
  for (const { key, salt } of [initiatorToResponder, responderToInitiator]) {
    key.fill(0);
    salt.fill(0);
  }
}
