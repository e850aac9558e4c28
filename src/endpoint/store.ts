import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { z } from 'zod';
import { type IpAddress, type MacAddress, parseMac, tryParseIp } from '../model/address.ts';
import { MyelinError } from '../model/error.ts';
import type { Endpoint } from './endpoint.ts';
import type { Lease } from './ipam.ts';

/** An endpoint, and whether it is whole: the removal of a `partial` one, half made or half removed, is still to be done. */
export interface EndpointRecord extends Endpoint {
  readonly phase: 'partial' | 'ready';
}

/** Everything of this room that survives a restart. */
export interface State {
  readonly leases: readonly Lease[];
  readonly endpoints: readonly EndpointRecord[];
}

export type StoreErrorCode =
  /** The file is there and cannot be understood. Starting empty would give out addresses that pods have. */
  | 'CorruptState'
  /** The file could not be written; nothing that it would have said was told to anybody. */
  | 'WriteFailed';

export class StoreError extends MyelinError<StoreErrorCode> {}

const ipAddress = z.string().transform((text, context): IpAddress => {
  const ip = tryParseIp(text);
  if (ip !== undefined) return ip;
  context.addIssue({ code: 'custom', message: 'expected an IP address' });
  return z.NEVER;
});
const macAddress = z
  .string()
  .regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/)
  .transform((text): MacAddress => parseMac(text));
const pod = z.strictObject({ namespace: z.string(), name: z.string(), uid: z.string() }).exactOptional();
const addresses = z.array(ipAddress).min(1).max(2);
const shape = z.strictObject({
  version: z.literal(1),
  leases: z.array(z.strictObject({ addresses, owner: z.string(), pod, releasedAt: z.number().exactOptional() })),
  endpoints: z.array(
    z.strictObject({
      phase: z.enum(['partial', 'ready']),
      containerId: z.string(),
      ifName: z.string(),
      network: z.string(),
      netns: z.string(),
      pod,
      addresses,
      mac: macAddress,
      hostMac: macAddress,
      hostInterface: z.string(),
      hostIndex: z.number(),
      mtu: z.number(),
      createdAt: z.number(),
    }),
  ),
});

/**
 * A small file that is either the old state or the new one, whenever the power goes: written beside, synced, renamed.
 * One process owns it.
 */
export class StateFile {
  readonly #path: string;
  /** Ends, without an error, when the last write asked for has. */
  #tail: Promise<void> = Promise.resolve();
  /** A write that has not started yet. */
  #queued: Promise<void> | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  /**
   * @returns An empty state where there is no file; its directory is made, for root only.
   * @throws {StoreError} `CorruptState`
   */
  async load(): Promise<State> {
    await mkdir(dirname(this.#path), { recursive: true, mode: 0o700 });
    let text: string;
    try {
      text = await readFile(this.#path, 'utf8');
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return { leases: [], endpoints: [] };
      throw error;
    }
    try {
      const { leases, endpoints } = shape.parse(JSON.parse(text));
      return { leases, endpoints };
    } catch (cause) {
      throw new StoreError(
        'CorruptState',
        `${this.#path} cannot be understood, and without it addresses of running pods could be given out again: ` +
          'restore it, or delete it and every pod of this node',
        { cause },
      );
    }
  }

  /**
   * Makes what `snapshot` says durable. Callers that come while a write is under way share the next one.
   * @param snapshot Called when the write starts, so it says at least what was true at the call.
   * @throws {StoreError} `WriteFailed`
   */
  save(snapshot: () => State): Promise<void> {
    if (this.#queued !== undefined) return this.#queued;
    const write = this.#tail.then(() => {
      this.#queued = undefined;
      return this.#write(snapshot());
    });
    this.#queued = write;
    this.#tail = write.catch(() => {});
    return write;
  }

  async #write(state: State): Promise<void> {
    const beside = `${this.#path}.new`;
    try {
      const file = await open(beside, 'w', 0o600);
      try {
        await file.writeFile(JSON.stringify({ version: 1, ...state }));
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(beside, this.#path);
      // The rename itself is only durable once the directory is.
      const handle = await open(dirname(this.#path), 'r');
      await handle.sync().finally(() => handle.close());
    } catch (cause) {
      await rm(beside, { force: true }).catch(() => {});
      throw new StoreError('WriteFailed', `${this.#path} could not be written`, { cause });
    }
  }
}
