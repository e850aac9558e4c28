import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { parseIp } from '../../model/address.ts';
import type { Sandbox } from './sandbox.ts';

const recordSchema = z.object({
  node: z.string(),
  pod: z.object({ namespace: z.string(), name: z.string(), uid: z.string() }),
  attempt: z.int(),
  /** Absent while it is being made. */
  sandbox: z
    .object({ id: z.string(), netns: z.string(), addresses: z.array(z.string().transform(parseIp)) })
    .optional(),
});

/** Which sandbox a pod has, on disk before the sandbox exists, so that the next daemon finds what this one left. */
export interface SandboxRecord {
  readonly node: string;
  readonly pod: { readonly namespace: string; readonly name: string; readonly uid: string };
  readonly attempt: number;
  readonly sandbox?: Sandbox | undefined;
}

/** @param directory The pod's own. */
export function writeSandboxRecord(directory: string, record: SandboxRecord): void {
  mkdirSync(directory, { recursive: true });
  const file = fileOf(directory);
  writeFileSync(`${file}.tmp`, JSON.stringify(record), { mode: 0o600 });
  renameSync(`${file}.tmp`, file);
}

/** @returns Undefined where there is none. */
export function readSandboxRecord(directory: string): SandboxRecord | undefined {
  const file = fileOf(directory);
  return existsSync(file) ? recordSchema.parse(JSON.parse(readFileSync(file, 'utf8'))) : undefined;
}

export function removeSandboxRecord(directory: string): void {
  rmSync(fileOf(directory), { force: true });
}

/** Of every pod below. @param podsDirectory Has a directory for each. */
export function listSandboxRecords(podsDirectory: string): SandboxRecord[] {
  if (!existsSync(podsDirectory)) return [];
  return readdirSync(podsDirectory).flatMap((uid) => readSandboxRecord(join(podsDirectory, uid)) ?? []);
}

function fileOf(directory: string): string {
  return join(directory, 'sandbox.json');
}
