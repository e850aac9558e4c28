import { createPrivateKey, type KeyObject } from 'node:crypto';
import { chmod, mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { messageOf } from './certificate.ts';
import { IdentityError } from './error.ts';
import { revocationsSchema } from './revocation.ts';
import type { CaState } from './rotation.ts';

const stateSchema = z.strictObject({
  version: z.literal(1),
  trustDomain: z.string(),
  sequence: z.int(),
  roots: z
    .array(
      z.strictObject({
        id: z.string().regex(/^[0-9a-f]{1,64}$/),
        status: z.enum(['next', 'signing', 'previous']),
        certificate: z.string(),
        publishedAt: z.number(),
        issuedUntil: z.number(),
      }),
    )
    .min(1),
  revocations: revocationsSchema,
  declared: revocationsSchema.default({ serials: [], podUids: [], spiffeIds: [] }),
});

/**
 * Where the CA keeps its state and the keys of its roots: `ca.json` and `<root id>.key` (PKCS#8 PEM), in a directory
 * that nobody else may enter (0700, files 0600; loading refuses anything wider). The keys are not sealed: whoever is
 * root on the controller's machine is the CA. A deployment that must not accept this plugs in another issuer.
 */
export class CaDirectory {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** @returns The state, or undefined in a directory without one. @throws {IdentityError} `CaDirectory` */
  async load(): Promise<{ state: CaState; keys: Map<string, KeyObject> } | undefined> {
    await mkdir(this.path, { recursive: true, mode: 0o700 });
    const text = await this.#read('ca.json');
    if (text === undefined) return undefined;
    try {
      const { version: _, ...state } = stateSchema.parse(JSON.parse(text));
      const keys = new Map<string, KeyObject>();
      for (const root of state.roots) {
        const pem = await this.#read(`${root.id}.key`);
        if (pem !== undefined) keys.set(root.id, createPrivateKey(pem));
      }
      return { state, keys };
    } catch (cause) {
      if (cause instanceof IdentityError) throw cause;
      throw new IdentityError('CaDirectory', `${this.path} does not hold a CA’s state: ${messageOf(cause)}`, { cause });
    }
  }

  /** Writes the state, each file whole or not at all: new keys first, keys that no longer sign removed last. */
  async save(state: CaState, keys: ReadonlyMap<string, KeyObject>): Promise<void> {
    for (const [id, key] of keys) await this.#write(`${id}.key`, key.export({ type: 'pkcs8', format: 'pem' }));
    await this.#write('ca.json', `${JSON.stringify({ version: 1, ...state }, null, 2)}\n`);
    for (const root of state.roots) if (!keys.has(root.id)) await rm(this.#file(`${root.id}.key`), { force: true });
  }

  #file(name: string): string {
    return join(this.path, name);
  }

  async #read(name: string): Promise<string | undefined> {
    const file = this.#file(name);
    const found = await stat(file).catch(() => undefined);
    if (found === undefined) return undefined;
    if ((found.mode & 0o077) !== 0)
      throw new IdentityError('CaDirectory', `${file} can be read by others: chmod 600 it, and consider the key known`);
    return await readFile(file, 'utf8');
  }

  async #write(name: string, content: string | Buffer): Promise<void> {
    const temporary = this.#file(`.${name}.tmp`);
    const handle = await open(temporary, 'w', 0o600);
    try {
      await handle.writeFile(content);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await chmod(temporary, 0o600);
    await rename(temporary, this.#file(name));
  }
}
