import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { PolicyFlow } from '../../src/policy/decide.ts';
import type { ClusterView } from '../../src/policy/view.ts';

/** A cluster and flows of it about which the three ways to a verdict once differed, or might. */
export interface AgreementCase {
  readonly name: string;
  readonly view: ClusterView;
  readonly flows: readonly PolicyFlow[];
}

const directory = join(import.meta.dirname, '../policy/cases');

export function loadCases(): AgreementCase[] {
  return readdirSync(directory)
    .filter((name) => name.endsWith('.json'))
    .sort()
    .map((name) => ({ name, ...JSON.parse(readFileSync(join(directory, name), 'utf8'), revive) }));
}

/** Keeps a failure for ever: from now on it is tried each time. @returns The file. */
export function saveCase(view: ClusterView, flows: readonly PolicyFlow[]): string {
  const text = `${JSON.stringify({ view, flows }, replace, 2)}\n`;
  mkdirSync(directory, { recursive: true });
  const file = join(directory, `${createHash('sha256').update(text).digest('hex').slice(0, 12)}.json`);
  writeFileSync(file, text);
  return file;
}

function replace(_: string, value: unknown): unknown {
  return value instanceof Map ? { map: [...value] } : value;
}

function revive(_: string, value: unknown): unknown {
  const isMap = typeof value === 'object' && value !== null && 'map' in value && Array.isArray(value.map);
  return isMap ? new Map(value.map as [unknown, unknown][]) : value;
}
