import { createHash } from 'node:crypto';

/** RFC 8446 section 7.5; the prefix marks a label that IANA has not registered (RFC 5705 section 4). */
export const exporterLabel = 'EXPERIMENTAL-myelin-esp-v1';
const keyLength = 32;
const saltLength = 4;

/** What seals one direction. Both are buffers of their own, which the driver zeroes. */
export interface DirectionKeys {
  readonly key: Buffer;
  readonly salt: Buffer;
}

export interface SessionKeys {
  readonly initiatorToResponder: DirectionKeys;
  readonly responderToInitiator: DirectionKeys;
}

/** The part of a TLS socket that keys come from. */
export interface Exporter {
  exportKeyingMaterial(length: number, label: string, context: Buffer): Buffer;
}

/**
 * Derives both directions' keys from the TLS session and from what was said in it: a session gives other keys for
 * another exchange, and an exchange gives other keys in another session.
 * The context is SHA-256 of the two lines as they were sent, line feeds included.
 * @param offer Without its line feed; `answer` likewise.
 */
export function deriveKeys(exporter: Exporter, offer: string, answer: string): SessionKeys {
  const context = createHash('sha256').update(`${offer}\n${answer}\n`).digest();
  const material = exporter.exportKeyingMaterial(2 * (keyLength + saltLength), exporterLabel, context);
  let offset = 0;
  const take = (length: number) => {
    const part = Buffer.alloc(length);
    material.copy(part, 0, offset, offset + length);
    offset += length;
    return part;
  };
  const initiatorToResponder = { key: take(keyLength), salt: take(saltLength) };
  const responderToInitiator = { key: take(keyLength), salt: take(saltLength) };
  material.fill(0);
  return { initiatorToResponder, responderToInitiator };
}

/** Zeroes what no driver took. */
export function wipeKeys({ initiatorToResponder, responderToInitiator }: SessionKeys): void {
  for (const { key, salt } of [initiatorToResponder, responderToInitiator]) {
    key.fill(0);
    salt.fill(0);
  }
}
