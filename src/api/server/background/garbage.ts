import type { Logger } from 'pino';
import type { AnyObject } from '../../json.ts';
import { objectKey } from '../../kinds.ts';
import type { Catalog } from '../catalog.ts';
import { deleteObject, foregroundFinalizer, orphanFinalizer, removeFinalizer } from '../deletion.ts';
import type { StoreEvent } from '../storage/history.ts';
import type { Store } from '../storage/store.ts';

interface Member {
  readonly resource: string;
  readonly key: string;
}

/**
 * Deletes what has owners of which none is there any more, as Kubernetes' garbage collector does: dependents follow
 * their owner (Background), go before it (Foreground), or are let go (Orphan).
 */
export class GarbageCollector {
  readonly #store: Store;
  readonly #catalog: Catalog;
  readonly #logger: Logger;
  readonly #alive = new Map<string, Member>();
  readonly #dependents = new Map<string, Map<string, Member>>();
  readonly #unsubscribe: () => void;
  #pending: (() => void)[] = [];
  #timer: NodeJS.Immediate | undefined;

  constructor(deps: { store: Store; catalog: Catalog; logger: Logger }) {
    this.#store = deps.store;
    this.#catalog = deps.catalog;
    this.#logger = deps.logger;
    for (const resource of this.#store.resources())
      for (const { object } of this.#store.values(resource)) this.#index(resource, object);
    this.#unsubscribe = this.#store.subscribe(undefined, (event) => this.#see(event));
    for (const uid of this.#dependents.keys()) if (!this.#alive.has(uid)) this.#later(() => this.#ownerGone(uid));
    for (const { resource, key } of this.#alive.values()) this.#later(() => this.#settle(resource, key));
  }

  close(): void {
    this.#unsubscribe();
    clearImmediate(this.#timer);
    this.#pending = [];
  }

  #see({ type, resource, object, previous }: StoreEvent): void {
    if (previous !== undefined) this.#forget(previous);
    const { uid = '' } = object.metadata;
    if (type === 'DELETED') {
      if (this.#dependents.has(uid)) this.#later(() => this.#ownerGone(uid));
      for (const owner of object.metadata.ownerReferences ?? []) this.#later(() => this.#settleUid(owner.uid));
      return;
    }
    this.#index(resource, object);
    if (object.metadata.ownerReferences !== undefined) this.#later(() => this.#collect(resource, objectKey(object)));
    if (object.metadata.deletionTimestamp !== undefined) this.#later(() => this.#settle(resource, objectKey(object)));
  }

  #index(resource: string, object: AnyObject): void {
    const { uid = '', ownerReferences = [] } = object.metadata;
    const member = { resource, key: objectKey(object) };
    this.#alive.set(uid, member);
    for (const owner of ownerReferences) {
      const members = this.#dependents.get(owner.uid) ?? new Map<string, Member>();
      members.set(uid, member);
      this.#dependents.set(owner.uid, members);
    }
  }

  #forget(object: AnyObject): void {
    const { uid = '', ownerReferences = [] } = object.metadata;
    this.#alive.delete(uid);
    for (const owner of ownerReferences) {
      const members = this.#dependents.get(owner.uid);
      members?.delete(uid);
      if (members?.size === 0) this.#dependents.delete(owner.uid);
    }
  }

  #ownerGone(uid: string): void {
    for (const { resource, key } of [...(this.#dependents.get(uid)?.values() ?? [])]) this.#collect(resource, key);
  }

  /** Deletes the object where it has owners and none of them is there. */
  #collect(resource: string, key: string): void {
    const object = this.#store.get(resource, key)?.object;
    const owners = object?.metadata.ownerReferences ?? [];
    if (object === undefined || owners.length === 0 || owners.some(({ uid }) => this.#owns(uid, object))) return;
    this.#delete(resource, object);
  }

  /** An owner of another namespace is none: whoever writes one namespace may not tie it to another's objects. */
  #owns(uid: string, dependent: AnyObject): boolean {
    const owner = this.#alive.get(uid);
    if (owner === undefined) return false;
    const namespace = this.#store.get(owner.resource, owner.key)?.object.metadata.namespace;
    return namespace === undefined || namespace === dependent.metadata.namespace;
  }

  #settleUid(uid: string): void {
    const member = this.#alive.get(uid);
    if (member !== undefined) this.#settle(member.resource, member.key);
  }

  /** Does what the propagation finalizers of an object under deletion ask for. */
  #settle(resource: string, key: string): void {
    const object = this.#store.get(resource, key)?.object;
    if (object?.metadata.deletionTimestamp === undefined) return;
    const { uid = '', finalizers = [] } = object.metadata;
    const members = [...(this.#dependents.get(uid)?.values() ?? [])];
    if (finalizers.includes(orphanFinalizer)) {
      for (const member of members) this.#release(member, uid);
      removeFinalizer(this.#store, resource, key, orphanFinalizer);
    } else if (finalizers.includes(foregroundFinalizer)) {
      for (const member of members) {
        const dependent = this.#store.get(member.resource, member.key)?.object;
        if (dependent !== undefined && dependent.metadata.deletionTimestamp === undefined)
          this.#delete(member.resource, dependent);
      }
      if ((this.#dependents.get(uid)?.size ?? 0) === 0)
        removeFinalizer(this.#store, resource, key, foregroundFinalizer);
    }
  }

  #release({ resource, key }: Member, owner: string): void {
    const object = this.#store.get(resource, key)?.object;
    if (object === undefined) return;
    const { ownerReferences = [], ...metadata } = object.metadata;
    const left = ownerReferences.filter(({ uid }) => uid !== owner);
    this.#store.put(resource, {
      ...object,
      metadata: left.length > 0 ? { ...metadata, ownerReferences: left } : metadata,
    });
  }

  #delete(resource: string, object: AnyObject): void {
    const kind = this.#catalog.byId(resource);
    const { namespace, name = '' } = object.metadata;
    if (kind === undefined) return;
    deleteObject(this.#store, { kind, namespace, name, dryRun: false });
    this.#logger.debug({ resource, namespace, name }, 'deleted, as its owner is gone');
  }

  /** Work is done after the change that made it necessary is through, a slice at a time. */
  #later(work: () => void): void {
    this.#pending.push(work);
    this.#timer ??= setImmediate(() => this.#run());
  }

  #run(): void {
    this.#timer = undefined;
    const slice = this.#pending.splice(0, 100);
    for (const work of slice)
      try {
        work();
      } catch (error) {
        this.#logger.error({ err: error }, 'garbage collection of an object failed');
      }
    if (this.#pending.length > 0) this.#timer ??= setImmediate(() => this.#run());
  }
}
