import { ApiError, isApiError } from '../api/client/error.ts';
import type { Api } from '../api/client/types.ts';
import { apiVersionOf, type KubeObject, knownResources } from '../api/kinds.ts';
import { checkDocuments, loadManifests, type ManifestObject } from '../api/manifest.ts';
import { applyManifests, deleteManifests } from '../api/manifest-apply.ts';
import { waitUntil } from './process.ts';

export interface ManifestOptions {
  /** For objects that name none. Default `default`. */
  readonly namespace?: string;
  readonly signal?: AbortSignal;
}

/** One object that was applied or deleted. */
export interface Applied {
  readonly object: KubeObject;
  readonly outcome: 'created' | 'configured' | 'unchanged' | 'deleted';
  /** As kubectl says it: `deployment.apps/web created`. */
  readonly text: string;
}

const goneTimeoutMs = 90_000;
const fieldManager = 'myelin-lab';

/**
 * Applies the manifests of files and directories.
 * @throws {ManifestError} with every file, line and field that is wrong: then nothing was applied; {ApiError}
 */
export function applyFiles(api: Api, files: readonly string[], options: ManifestOptions): Promise<Applied[]> {
  return applyAll(api, loadManifests(files, options), options.signal);
}

/** As {@link applyFiles}, from objects. */
export function applyObjects(api: Api, objects: readonly KubeObject[], options: ManifestOptions): Promise<Applied[]> {
  return applyAll(api, checked(objects, options), options.signal);
}

/** Deletes what the manifests name and waits until it is gone. @throws {ManifestError}; {ApiError}; {LabError} `Timeout` */
export function deleteFiles(api: Api, files: readonly string[], options: ManifestOptions): Promise<Applied[]> {
  return deleteAll(api, loadManifests(files, options), options.signal);
}

/** As {@link deleteFiles}, from objects, of which kind and name suffice. */
export function deleteObjects(api: Api, objects: readonly KubeObject[], options: ManifestOptions): Promise<Applied[]> {
  const { namespace = 'default', signal } = options;
  const manifests = objects.map((object): ManifestObject => {
    const resource = knownResources.find(
      (known) => known.kind === object.kind && apiVersionOf(known) === object.apiVersion,
    );
    if (resource === undefined)
      throw new ApiError('NotFound', `there is no kind ${object.kind} in ${object.apiVersion}`);
    const metadata = resource.namespaced ? { namespace, ...object.metadata } : object.metadata;
    return { object: { ...object, metadata }, resource, place: { file: 'object', line: 1, column: 1 } };
  });
  return deleteAll(api, manifests, signal);
}

function checked(objects: readonly KubeObject[], options: ManifestOptions): ManifestObject[] {
  const documents = objects.map((value, i) => ({
    file: `object ${i}`,
    value,
    placeOf: () => ({ file: `object ${i}`, line: 1, column: 1 }),
  }));
  return checkDocuments(documents, options);
}

/** As {@link applyFiles}, of manifests that were loaded before. */
export async function applyAll(
  api: Api,
  manifests: readonly ManifestObject[],
  signal?: AbortSignal,
): Promise<Applied[]> {
  const applied = await applyManifests(api, manifests, { fieldManager, ...(signal === undefined ? {} : { signal }) });
  return applied.map(({ manifest, outcome }) => describe(manifest, outcome));
}

async function deleteAll(api: Api, manifests: readonly ManifestObject[], signal?: AbortSignal): Promise<Applied[]> {
  const deleted = await deleteManifests(api, manifests, signal);
  let left = deleted;
  await waitUntil(
    async () => {
      const present = await Promise.all(
        left.map(async (manifest) => ((await isThere(api, manifest)) ? [manifest] : [])),
      );
      left = present.flat();
      return left.length === 0 || left.map(({ object }) => `${object.kind} ${object.metadata.name}`).join(', ');
    },
    { what: 'these are still there', timeoutMs: goneTimeoutMs, ...(signal === undefined ? {} : { signal }) },
  );
  return deleted.map((manifest) => describe(manifest, 'deleted'));
}

async function isThere(api: Api, { resource, object }: ManifestObject): Promise<boolean> {
  const { namespace, name = '' } = object.metadata;
  try {
    await api.get(resource, { namespace, name });
    return true;
  } catch (error) {
    if (isApiError(error, 'NotFound')) return false;
    throw error;
  }
}

function describe({ resource, object }: ManifestObject, outcome: Applied['outcome']): Applied {
  const kind = resource.group === '' ? resource.singular : `${resource.singular}.${resource.group}`;
  return { object, outcome, text: `${kind}/${object.metadata.name} ${outcome}` };
}
