import type { PolicyEntry } from '../image.ts';

/** What an entry matches. */
export type EntryMatch = Pick<PolicyEntry, 'identity' | 'protocol' | 'port' | 'portLength'>;

/** One number per match within a set (24 + 16 + 8 + 5 bits, which a double holds exactly). */
export function entryKey({ identity, protocol, port, portLength }: EntryMatch): number {
  return ((identity * 0x1_0000 + port) * 0x100 + protocol) * 0x20 + portLength;
}

/** The first `length` of a port's 16 bits. */
export function portBlock(port: number, length: number): number {
  return port & (0xffff << (16 - length)) & 0xffff;
}
