import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { type IpAddress, tryParseIp } from '../../model/address.ts';
import type { Lifetimes, SaDirection, SaId, TrafficSelector, UnderlayAddress } from '../driver.ts';

/** What the kernel does not keep of a security association. Never its key. */
export interface SaNote {
  readonly direction: SaDirection;
  readonly spi: number;
  readonly peer: UnderlayAddress;
  /** Grows with every association: tells the newest of a pair. */
  readonly serial: number;
  readonly selectors: readonly TrafficSelector[];
  readonly lifetimes: Lifetimes;
  readonly replayWindow: number;
  readonly note: string;
  /** How often the kernel has made a copy of it, for another address of the peer. */
  readonly copies?: number;
}

const address = z.string().transform((text, context): IpAddress => {
  const ip = tryParseIp(text);
  if (ip !== undefined) return ip;
  context.addIssue({ code: 'custom', message: 'not an IP address' });
  return z.NEVER;
});
const limit = z.number().exactOptional();
const schema = z.object({
  direction: z.enum(['in', 'out']),
  spi: z.number(),
  peer: z.object({ address, port: z.number() }),
  serial: z.number(),
  selectors: z.array(z.object({ local: address, remote: address })),
  lifetimes: z.object({ softBytes: limit, hardBytes: limit, softPackets: limit, hardPackets: limit }),
  replayWindow: z.number(),
  note: z.string(),
  copies: limit,
});

/** Equal for equal associations: an inbound SPI is this node's own, an outbound one its peer's. */
export function noteKey({ direction, spi, peer }: SaId): string {
  const name = `${direction}-${spi.toString(16).padStart(8, '0')}`;
  return direction === 'in' ? name : `${name}-${peer.address.replaceAll(':', '_')}`;
}

/**
 * Notes on the node's security associations, a file each, because these outlive the agent; on a tmpfs, because they do not
 * outlive the machine.
 */
export class SaNotes {
  readonly #directory: string;
  readonly #notes = new Map<string, SaNote>();
  #serial = 0;

  /** @param directory Made if it is not there. What cannot be understood in it is removed. */
  constructor(directory: string) {
    this.#directory = directory;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    for (const name of readdirSync(directory)) {
      const note = readNote(join(directory, name));
      if (note === undefined || noteKey(note) !== name) {
        rmSync(join(directory, name), { force: true });
        continue;
      }
      this.#notes.set(name, note);
      this.#serial = Math.max(this.#serial, note.serial);
    }
  }

  /** Oldest first. */
  get all(): SaNote[] {
    return [...this.#notes.values()].sort((a, b) => a.serial - b.serial);
  }

  get(id: SaId): SaNote | undefined {
    return this.#notes.get(noteKey(id));
  }

  add(note: Omit<SaNote, 'serial'>): SaNote {
    const kept = { ...note, serial: ++this.#serial };
    this.put(kept);
    return kept;
  }

  /** Replaces the note of the same association. */
  put(note: SaNote): void {
    const key = noteKey(note);
    const next = join(this.#directory, `.${key}`);
    writeFileSync(next, JSON.stringify(note), { mode: 0o600 });
    renameSync(next, join(this.#directory, key));
    this.#notes.set(key, note);
  }

  delete(id: SaId): void {
    const key = noteKey(id);
    if (this.#notes.delete(key)) rmSync(join(this.#directory, key), { force: true });
  }
}

function readNote(path: string): SaNote | undefined {
  try {
    return schema.parse(JSON.parse(readFileSync(path, 'utf8')));
  } catch {
    return undefined;
  }
}
