import { type AnyObject, objectOr, stringOr } from '../json.ts';
import type { ServedKind } from './catalog.ts';
import { isFinished, keyOf } from './objects.ts';
import { conflict, forbidden, notFound } from './status.ts';
import type { Store } from './storage/store.ts';
import { timestamp } from './world.ts';

export interface DeletionRequest {
  readonly kind: ServedKind;
  readonly namespace: string | undefined;
  readonly name: string;
  readonly gracePeriodSeconds?: number | undefined;
  readonly propagation?: 'Background' | 'Foreground' | 'Orphan' | undefined;
  readonly preconditions?:
    | { readonly uid?: string | undefined; readonly resourceVersion?: string | undefined }
    | undefined;
  readonly dryRun: boolean;
  readonly restrict?: (old: AnyObject) => void;
}

export interface DeletionResult {
  readonly object: AnyObject;
  /** False: it is marked, and goes when its grace or its finalizers allow. */
  readonly gone: boolean;
}

/** Holds a definition until its custom resources are gone. */
export const definitionFinalizer = 'customresourcecleanup.apiextensions.k8s.io';
/** Holds an owner until its dependents are gone. */
export const foregroundFinalizer = 'foregroundDeletion';
/** Holds an owner until its dependents have been let go. */
export const orphanFinalizer = 'orphan';

const protectedNamespaces = ['default', 'kube-system', 'kube-public'];

/**
 * Deletes an object, or marks it: a pod until its kubelet has stopped it, a namespace until it is empty, anything until its
 * finalizers are gone.
 * @throws {StatusError}
 */
export function deleteObject(store: Store, request: DeletionRequest): DeletionResult {
  const { kind, namespace, name, dryRun } = request;
  const stored = store.get(kind.id, keyOf(namespace, name));
  if (stored === undefined) throw notFound(kind, name);
  const old = stored.object;
  checkPreconditions(old, request);
  request.restrict?.(old);
  if (kind.id === '/namespaces' && protectedNamespaces.includes(name))
    throw forbidden(kind, name, 'this namespace may not be deleted');
  const finalizers = finalizersFor(old, request);
  const grace = graceFor(old, request);
  const held = finalizers.length > 0 || grace > 0 || kind.id === '/namespaces';
  if (!held) {
    if (!dryRun) store.remove(kind.id, stored.key);
    return { object: old, gone: true };
  }
  const marked = mark(old, finalizers, grace, kind);
  if (dryRun || marked === old) return { object: marked, gone: false };
  return { object: store.put(kind.id, marked).object, gone: false };
}

function checkPreconditions({ metadata }: AnyObject, { kind, name, preconditions }: DeletionRequest): void {
  const { uid, resourceVersion } = preconditions ?? {};
  if (uid !== undefined && uid !== metadata.uid)
    throw conflict(
      kind,
      name,
      `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${metadata.uid ?? ''}`,
    );
  if (resourceVersion !== undefined && resourceVersion !== metadata.resourceVersion)
    throw conflict(
      kind,
      name,
      `Precondition failed: resourceVersion in precondition: ${resourceVersion}, resourceVersion in object meta: ${metadata.resourceVersion ?? ''}`,
    );
}

function finalizersFor({ metadata }: AnyObject, { kind, propagation }: DeletionRequest): string[] {
  const finalizers = new Set(metadata.finalizers ?? []);
  if (propagation !== undefined) {
    finalizers.delete(foregroundFinalizer);
    finalizers.delete(orphanFinalizer);
  }
  if (propagation === 'Foreground') finalizers.add(foregroundFinalizer);
  if (propagation === 'Orphan') finalizers.add(orphanFinalizer);
  if (kind.id === 'apiextensions.k8s.io/customresourcedefinitions' && metadata.deletionTimestamp === undefined)
    finalizers.add(definitionFinalizer);
  return [...finalizers];
}

/** A pod that runs on a node has the time that it asks for to stop; nothing else needs any. */
function graceFor(old: AnyObject, { kind, gracePeriodSeconds }: DeletionRequest): number {
  if (kind.id !== '/pods') return 0;
  const spec = objectOr(old.spec);
  const phase = objectOr(old.status).phase;
  if (stringOr(spec.nodeName, '') === '' || phase === 'Succeeded' || phase === 'Failed') return 0;
  const asked = gracePeriodSeconds ?? Number(spec.terminationGracePeriodSeconds ?? 30);
  if (asked === 0) return 0;
  return Math.max(1, asked);
}

function mark(old: AnyObject, finalizers: string[], grace: number, kind: ServedKind): AnyObject {
  const { deletionTimestamp, deletionGracePeriodSeconds = 0 } = old.metadata;
  const already = deletionTimestamp !== undefined;
  const sameFinalizers = finalizers.length === (old.metadata.finalizers ?? []).length;
  // A second request may shorten the time that is left, never lengthen it.
  if (already && grace >= deletionGracePeriodSeconds && sameFinalizers) return old;
  const seconds = already ? Math.min(grace, deletionGracePeriodSeconds) : grace;
  const status = kind.id === '/namespaces' ? { status: { ...objectOr(old.status), phase: 'Terminating' } } : {};
  return {
    ...old,
    ...status,
    metadata: {
      ...old.metadata,
      ...(finalizers.length > 0 ? { finalizers } : {}),
      deletionTimestamp:
        already && seconds === deletionGracePeriodSeconds ? deletionTimestamp : timestamp(Date.now() + 1000 * seconds),
      deletionGracePeriodSeconds: seconds,
    },
  };
}

/** Takes one finalizer away. Where it was the last thing that held the object, the object is gone. */
export function removeFinalizer(store: Store, id: string, key: string, finalizer: string): void {
  const stored = store.get(id, key);
  if (stored === undefined) return;
  const finalizers = (stored.object.metadata.finalizers ?? []).filter((name) => name !== finalizer);
  const { finalizers: _old, ...metadata } = stored.object.metadata;
  const next: AnyObject = {
    ...stored.object,
    metadata: finalizers.length > 0 ? { ...metadata, finalizers } : metadata,
  };
  if (isFinished(next)) store.remove(id, key, next);
  else store.put(id, next);
}
