import { createCipheriv, createDecipheriv } from 'node:crypto';

/**
 * ESP in tunnel mode with AES-256-GCM and 64-bit sequence numbers, written from RFC 4303 and RFC 4106 and for nothing but
 * tests: a second implementation to hold the engine's against, and to forge with.
 */

export interface EspKey {
  readonly key: Buffer;
  readonly salt: Buffer;
}

export interface SealOptions extends EspKey {
  readonly spi: number;
  readonly sequence: bigint;
  /** The inner packet, or anything. */
  readonly inner: Uint8Array;
  /** Default: what the inner packet's version says. */
  readonly nextHeader?: number;
  /** Bytes of padding; default the fewest that align to four. */
  readonly padding?: number;
  /** The explicit IV; default the sequence number, as the engine has it. */
  readonly iv?: Buffer;
}

function aad(spi: number, sequence: bigint): Buffer {
  const bytes = Buffer.alloc(12);
  bytes.writeUInt32BE(spi, 0);
  bytes.writeBigUInt64BE(sequence, 4);
  return bytes;
}

/** @returns The ESP packet as it stands in a UDP datagram. */
export function sealEsp(options: SealOptions): Buffer {
  const { spi, sequence, inner } = options;
  const version = (inner[0] ?? 0) >> 4;
  const nextHeader = options.nextHeader ?? (version === 4 ? 4 : 41);
  const length = options.padding ?? (4 - ((inner.length + 2) % 4)) % 4;
  const padding = Uint8Array.from({ length }, (_, i) => i + 1);
  const iv = options.iv ?? Buffer.alloc(8);
  if (options.iv === undefined) iv.writeBigUInt64BE(sequence);
  const header = Buffer.alloc(8);
  header.writeUInt32BE(spi, 0);
  header.writeUInt32BE(Number(sequence & 0xffff_ffffn), 4);
  const cipher = createCipheriv('aes-256-gcm', options.key, Buffer.concat([options.salt, iv]));
  cipher.setAAD(aad(spi, sequence));
  const plain = Buffer.concat([inner, padding, Uint8Array.of(length, nextHeader)]);
  return Buffer.concat([header, iv, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

export interface OpenedEsp {
  readonly spi: number;
  /** The low 32 bits, as in the packet. */
  readonly sequence: number;
  readonly inner: Buffer;
  readonly nextHeader: number;
  readonly padding: number;
}

/**
 * @param high The high 32 bits of the sequence number.
 * @throws Where the packet does not authenticate or its padding is not 1, 2, 3 …
 */
export function openEsp(packet: Buffer, key: EspKey, high = 0n): OpenedEsp {
  const spi = packet.readUInt32BE(0);
  const sequence = packet.readUInt32BE(4);
  const decipher = createDecipheriv('aes-256-gcm', key.key, Buffer.concat([key.salt, packet.subarray(8, 16)]));
  decipher.setAAD(aad(spi, (high << 32n) | BigInt(sequence)));
  decipher.setAuthTag(packet.subarray(-16));
  const plain = Buffer.concat([decipher.update(packet.subarray(16, -16)), decipher.final()]);
  const padding = plain.readUInt8(plain.length - 2);
  const inner = plain.subarray(0, plain.length - 2 - padding);
  for (let i = 0; i < padding; i++)
    if (plain[inner.length + i] !== i + 1) throw new Error(`padding byte ${i} is ${plain[inner.length + i]}`);
  return { spi, sequence, inner, nextHeader: plain.readUInt8(plain.length - 1), padding };
}
