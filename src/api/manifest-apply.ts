import { isApiError } from './client/error.ts';
import type { Api } from './client/types.ts';
import type { KubeObject, Live } from './kinds.ts';
import type { ManifestObject } from './manifest.ts';

export type ApplyOutcome = 'created' | 'configured' | 'unchanged';

export interface Applied {
  readonly manifest: ManifestObject;
  readonly object: Live<KubeObject>;
  readonly outcome: ApplyOutcome;
}

export interface ApplyOptions {
  /** Whose fields these are. Default `myelin`. */
  readonly fieldManager?: string;
  readonly signal?: AbortSignal;
  /** Is told of each object as it is done. */
  readonly onApplied?: (applied: Applied) => void;
}

/**
 * Makes the cluster have these objects, in their order: creates what is not there, changes what is, by server-side apply.
 * The server checks all of them before the first is stored.
 * @throws {ApiError} What the server says to the first that it refuses; where it is said to the check, nothing was changed.
 */
export async function applyManifests(
  api: Api,
  objects: readonly ManifestObject[],
  options: ApplyOptions = {},
): Promise<Applied[]> {
  for (const manifest of objects) await check(api, manifest, objects, options);
  const results: Applied[] = [];
  for (const manifest of objects) {
    const before = await versionOf(api, manifest, options.signal);
    const object = await apply(api, manifest, options, false);
    const outcome =
      before === undefined ? 'created' : before === object.metadata.resourceVersion ? 'unchanged' : 'configured';
    const applied: Applied = { manifest, object, outcome };
    results.push(applied);
    options.onApplied?.(applied);
  }
  return results;
}

/**
 * Deletes these objects, the last first; those that are not there are passed over.
 * @returns Those that were there.
 * @throws {ApiError}
 */
export async function deleteManifests(
  api: Api,
  objects: readonly ManifestObject[],
  signal?: AbortSignal,
): Promise<ManifestObject[]> {
  const deleted: ManifestObject[] = [];
  for (const manifest of objects.toReversed())
    try {
      await api.delete(manifest.resource, refOf(manifest), {
        propagation: 'Background',
        ...(signal === undefined ? {} : { signal }),
      });
      deleted.push(manifest);
    } catch (error) {
      if (!isApiError(error, 'NotFound')) throw error;
    }
  return deleted;
}

async function check(
  api: Api,
  manifest: ManifestObject,
  all: readonly ManifestObject[],
  options: ApplyOptions,
): Promise<void> {
  try {
    await apply(api, manifest, options, true);
  } catch (error) {
    // What it needs may be among what is applied with it, and so not there yet.
    if (isApiError(error, 'NotFound') && all.some((other) => other !== manifest && isNeededBy(other, manifest))) return;
    if (
      isApiError(error, 'Forbidden') &&
      all.some((other) => other.object.kind === 'ServiceAccount' && isNeededBy(other, manifest))
    )
      return;
    throw error;
  }
}

function isNeededBy({ object: other }: ManifestObject, { object, resource }: ManifestObject): boolean {
  if (other.kind === 'Namespace') return other.metadata.name === object.metadata.namespace;
  if (other.kind === 'CustomResourceDefinition') return other.metadata.name === `${resource.plural}.${resource.group}`;
  return other.kind === 'ServiceAccount' && other.metadata.namespace === object.metadata.namespace;
}

function apply(
  api: Api,
  { object, resource, ...rest }: ManifestObject,
  options: ApplyOptions,
  dryRun: boolean,
): Promise<Live<KubeObject>> {
  return api.patch(
    resource,
    refOf({ object, resource, ...rest }),
    { type: 'apply', patch: object, force: true },
    {
      dryRun,
      ...(options.fieldManager === undefined ? {} : { fieldManager: options.fieldManager }),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    },
  );
}

async function versionOf(
  api: Api,
  manifest: ManifestObject,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  try {
    return (await api.get(manifest.resource, refOf(manifest), signal)).metadata.resourceVersion;
  } catch (error) {
    if (isApiError(error, 'NotFound')) return undefined;
    throw error;
  }
}

function refOf({ object }: ManifestObject) {
  return { namespace: object.metadata.namespace, name: object.metadata.name ?? '' };
}
