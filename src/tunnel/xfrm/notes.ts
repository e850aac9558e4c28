import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { z } from 'zod';

const selector = z.object({ local: z.string(), remote: z.string() });
const noteSchema = z.object({
  selectors: z.array(selector),
  port: z.number(),
  note: z.string(),
  replayWindow: z.number(),
  lifetimes: z.object({
    softBytes: z.number().optional(),
    hardBytes: z.number().optional(),
    softPackets: z.number().optional(),
    hardPackets: z.number().optional(),
  }),
});
export type SaNote = z.infer<typeof noteSchema>;

/**
 * What the kernel does not keep of a security association, by the association's name: never its key. A file, because the
 * associations outlive the agent; on a tmpfs, because neither outlives the machine.
 */
export class SaNotes {
  readonly #path: string;
  readonly #notes: Map<string, SaNote>;

  /** @param path Absent or unreadable means that nothing is known: the associations are then replaced by new ones. */
  constructor(path: string) {
    this.#path = path;
    this.#notes = new Map(Object.entries(readNotes(path)));
  }

  get(key: string): SaNote | undefined {
    return this.#notes.get(key);
  }

  set(key: string, note: SaNote): void {
    this.#notes.set(key, note);
    this.#write();
  }

  delete(key: string): void {
    if (this.#notes.delete(key)) this.#write();
  }

  #write(): void {
    const next = `${this.#path}.next`;
    writeFileSync(next, JSON.stringify(Object.fromEntries(this.#notes)), { mode: 0o600 });
    renameSync(next, this.#path);
  }
}

function readNotes(path: string): Record<string, SaNote> {
  try {
    return z.record(z.string(), noteSchema).parse(JSON.parse(readFileSync(path, 'utf8')));
  } catch {
    return {};
  }
}
