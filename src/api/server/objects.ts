import { randomInt, randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { type AnyObject, isKubeObject, isList, objectOr, withoutUndefined } from '../json.ts';
import type { ObjectMeta } from '../kinds.ts';
import { inOrderOfPlace } from '../order.ts';
import type { ServedKind } from './catalog.ts';
import { decodeObject, type FieldValidation, isUnderstood } from './decode.ts';
import { checkMetadata, checkMetadataUpdate } from './rules/metadata.ts';
import type { World } from './rules/rules.ts';
import { alreadyExists, badRequest, conflict, forbidden, invalid, notFound } from './status.ts';
import { type Store, sameContent } from './storage/store.ts';

/** What a write asks for beside the object. */
export interface WriteRequest {
  readonly kind: ServedKind;
  /** Undefined for kinds without a namespace. */
  readonly namespace: string | undefined;
  readonly validation: FieldValidation;
  readonly dryRun: boolean;
  warn(message: string): void;
  /** A last look at what is about to be stored, by whoever knows who asks. @throws {StatusError} */
  readonly restrict?: (next: AnyObject, old: AnyObject | undefined) => void;
}

export interface UpdateRequest extends WriteRequest {
  readonly name: string;
  readonly subresource: '' | 'status';
  /** Lets managedFields be what the update says (server-side apply) instead of what they were. */
  readonly writesManagedFields?: boolean;
}

/** Creates and updates objects: from the body of a request to what is in the store. All of it happens in one turn of the event loop. */
export class Objects {
  readonly #store: Store;
  readonly #world: World;

  readonly #created: (kind: ServedKind, object: AnyObject) => void;

  /** @param created Is told of each object that came to be, before its creator is. */
  constructor(store: Store, world: World, created: (kind: ServedKind, object: AnyObject) => void) {
    this.#store = store;
    this.#world = world;
    this.#created = created;
  }

  /** @throws {StatusError} */
  create(body: unknown, request: WriteRequest): AnyObject {
    const { kind, namespace, dryRun } = request;
    const object = decodeObject(kind, body, request.validation, request.warn);
    const { metadata } = object;
    placeInNamespace(metadata, request);
    if (metadata.resourceVersion) throw badRequest('resourceVersion should not be set on objects to be created');
    for (const field of serverFields) delete metadata[field];
    if (namespace !== undefined) this.#requireNamespace(kind, namespace, metadata.name ?? '');
    if (kind.status && !kind.rules.keepsStatusOnCreate) delete object.status;
    if (!metadata.name && metadata.generateName) metadata.name = this.#generateName(kind, metadata);
    kind.rules.prepareCreate(object, this.#world);
    kind.rules.defaults(object);
    const issues = [...checkMetadata(metadata, kind.rules.name), ...kind.rules.validate(object)];
    if (issues.length > 0) throw invalid(kind, metadata.name ?? '', inOrderOfPlace(issues, object));
    if (this.#store.get(kind.id, keyOf(namespace, metadata.name ?? '')) !== undefined)
      throw alreadyExists(kind, metadata.name ?? '');
    kind.rules.admit(object, undefined, this.#world);
    metadata.uid = randomUUID();
    metadata.creationTimestamp = this.#world.now();
    if (object.spec !== undefined) metadata.generation = 1;
    const clean = tidy(object);
    request.restrict?.(clean, undefined);
    for (const text of kind.rules.warnings(clean)) request.warn(text);
    if (dryRun) return clean;
    const { object: created } = this.#store.put(kind.id, clean);
    this.#created(kind, created);
    return created;
  }

  /**
   * @param change Makes the body of the update from what is stored; called once.
   * @throws {StatusError}
   */
  update(change: (old: AnyObject) => unknown, request: UpdateRequest): AnyObject {
    const { kind, namespace, name, subresource } = request;
    const stored = this.#store.get(kind.id, keyOf(namespace, name));
    if (stored === undefined) throw notFound(kind, name);
    const old = stored.object;
    const asked = decodeObject(kind, change(old), request.validation, request.warn, subresource);
    placeInNamespace(asked.metadata, request);
    checkSameObject(asked.metadata, old.metadata, request);
    const next = combine(asked, old, request);
    if (subresource === '') kind.rules.prepareUpdate(next, old, this.#world);
    // What was stored by a newer server is none that these rules know; its status can be written all the same.
    const known = subresource === '' || isUnderstood(kind, next);
    if (known) kind.rules.defaults(next);
    const issues = [
      ...checkMetadata(next.metadata, kind.rules.name),
      ...checkMetadataUpdate(next.metadata, old.metadata),
      ...(known ? kind.rules.validate(next) : []),
      ...(subresource === '' ? kind.rules.validateUpdate(next, old) : []),
    ];
    if (issues.length > 0) throw invalid(kind, name, inOrderOfPlace(issues, next));
    if (subresource === '') kind.rules.admit(next, old, this.#world);
    if (old.metadata.generation !== undefined && !isDeepStrictEqual(desired(tidy(next)), desired(old)))
      next.metadata.generation = old.metadata.generation + 1;
    const clean = tidy(next);
    request.restrict?.(clean, old);
    if (known) for (const text of kind.rules.warnings(clean)) request.warn(text);
    if (sameContent(clean, old)) return old;
    if (request.dryRun) return clean;
    if (isFinished(clean)) return this.#store.remove(kind.id, stored.key, clean)?.object ?? clean;
    return this.#store.put(kind.id, clean).object;
  }

  #requireNamespace(kind: ServedKind, namespace: string, name: string): void {
    const found = this.#store.get('/namespaces', namespace);
    if (found === undefined)
      throw notFound({ group: '', version: 'v1', kind: 'Namespace', plural: 'namespaces' }, namespace);
    if (found.object.metadata.deletionTimestamp !== undefined)
      throw forbidden(
        kind,
        name,
        `unable to create new content in namespace ${namespace} because it is being terminated`,
      );
  }

  #generateName(kind: ServedKind, metadata: ObjectMeta): string {
    const base = (metadata.generateName ?? '').slice(0, 58);
    for (let tries = 0; tries < 8; tries++) {
      const name = base + Array.from({ length: 5 }, () => alphabet[randomInt(alphabet.length)]).join('');
      if (this.#store.get(kind.id, keyOf(metadata.namespace, name)) === undefined) return name;
    }
    throw conflict(kind, base, 'no free name could be generated');
  }
}

/** The letters that Kubernetes generates names from: no vowels, so no words. */
const alphabet = 'bcdfghjklmnpqrstvwxz2456789';

const serverFields = [
  'uid',
  'creationTimestamp',
  'deletionTimestamp',
  'deletionGracePeriodSeconds',
  'generation',
  'selfLink',
] as const;

export function keyOf(namespace: string | undefined, name: string): string {
  return namespace === undefined ? name : `${namespace}/${name}`;
}

/** Whether everything that held up the object's deletion is gone. */
export function isFinished({ kind, apiVersion, metadata, spec }: AnyObject): boolean {
  if (metadata.deletionTimestamp === undefined || (metadata.finalizers ?? []).length > 0) return false;
  // A namespace is held by its spec.finalizers until it is empty.
  if (kind === 'Namespace' && apiVersion === 'v1' && isList(objectOr(spec).finalizers)) return false;
  return (metadata.deletionGracePeriodSeconds ?? 0) === 0;
}

function placeInNamespace(metadata: ObjectMeta, { namespace }: WriteRequest): void {
  if (namespace === undefined) delete metadata.namespace;
  else if (metadata.namespace && metadata.namespace !== namespace)
    throw badRequest('the namespace of the provided object does not match the namespace sent on the request');
  else metadata.namespace = namespace;
}

function checkSameObject(asked: ObjectMeta, old: ObjectMeta, { kind, name }: UpdateRequest): void {
  asked.name ??= name;
  if (asked.name !== name)
    throw badRequest(`the name of the object (${asked.name}) does not match the name on the URL (${name})`);
  if (asked.uid && asked.uid !== old.uid)
    throw conflict(
      kind,
      name,
      `Precondition failed: UID in precondition: ${asked.uid}, UID in object meta: ${old.uid ?? ''}`,
    );
  if (asked.resourceVersion && asked.resourceVersion !== old.resourceVersion) throw conflict(kind, name);
}

/** The update's part of the object, over what an update cannot reach. */
function combine(
  asked: AnyObject,
  old: AnyObject,
  { kind, subresource, writesManagedFields }: UpdateRequest,
): AnyObject {
  const managed = writesManagedFields === true ? asked.metadata.managedFields : old.metadata.managedFields;
  if (subresource === 'status') {
    // Whoever may write the status may not, by that, write labels: they decide which policies hold.
    const whole = { ...structuredClone(old), status: asked.status };
    whole.metadata.managedFields = managed;
    return whole;
  }
  const metadata: ObjectMeta = { ...asked.metadata, managedFields: managed };
  for (const field of [...serverFields, 'generateName', 'namespace'] as const) delete metadata[field];
  const { uid, creationTimestamp, deletionTimestamp, deletionGracePeriodSeconds, generation, generateName, namespace } =
    old.metadata;
  Object.assign(metadata, {
    uid,
    creationTimestamp,
    deletionTimestamp,
    deletionGracePeriodSeconds,
    generation,
    generateName,
    namespace,
  });
  if (isCleared(asked.metadata) && writesManagedFields !== true) delete metadata.managedFields;
  const next: AnyObject = { ...asked, metadata: structuredClone(metadata) };
  if (kind.status) next.status = structuredClone(old.status);
  return next;
}

/** `managedFields: []`, or one empty entry, is how a client gives up on them. */
function isCleared({ managedFields }: ObjectMeta): boolean {
  if (managedFields === undefined) return false;
  return managedFields.every((entry) => Object.keys(entry).length === 0);
}

/** What `generation` counts the changes of. */
function desired({ metadata: _metadata, status: _status, ...rest }: AnyObject): unknown {
  return rest;
}

/** Drops fields that are undefined: JSON has none, and they would make equal objects look different. */
function tidy(object: AnyObject): AnyObject {
  const clean = withoutUndefined(object);
  return isKubeObject(clean) ? clean : object;
}
