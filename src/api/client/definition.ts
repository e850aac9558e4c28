import { kinds, type Resource } from '../kinds.ts';
import { isApiError } from './error.ts';
import type { Api } from './types.ts';

/**
 * Waits for a kind's CustomResourceDefinition to be there, or to be another version than the one that is known.
 * @param known What this returned before.
 * @returns The definition's version; undefined where it cannot be watched (not allowed, the API away), the watch ended, or
 * the kind is none that is defined so.
 */
export async function nextDefinition(
  api: Api,
  { plural, group }: Resource,
  known: string | undefined,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (!group.includes('.')) return undefined;
  const fieldSelector = `metadata.name=${plural}.${group}`;
  try {
    for await (const event of api.watch(kinds.CustomResourceDefinition, { fieldSelector, signal })) {
      if (event.type !== 'ADDED' && event.type !== 'MODIFIED') continue;
      const { resourceVersion } = event.entry.raw.metadata;
      if (resourceVersion !== undefined && resourceVersion !== known) return resourceVersion;
    }
  } catch (error) {
    if (!isApiError(error)) throw error;
  }
  return undefined;
}
