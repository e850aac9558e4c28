import type { Logger } from 'pino';
import type { AnyObject } from '../../json.ts';
import type { Catalog } from '../catalog.ts';
import { definitionFinalizer, deleteObject, removeFinalizer } from '../deletion.ts';
import type { StoreEvent } from '../storage/history.ts';
import type { Store } from '../storage/store.ts';

const definitions = 'apiextensions.k8s.io/customresourcedefinitions';

/** Empties namespaces and definitions that are being deleted, and lets them go when they are empty. */
export class ContentsRemover {
  readonly #store: Store;
  readonly #catalog: Catalog;
  readonly #logger: Logger;
  readonly #unsubscribe: () => void;
  readonly #pending = new Set<string>();
  #timer: NodeJS.Immediate | undefined;

  constructor(deps: { store: Store; catalog: Catalog; logger: Logger }) {
    this.#store = deps.store;
    this.#catalog = deps.catalog;
    this.#logger = deps.logger;
    this.#unsubscribe = this.#store.subscribe(undefined, (event) => this.#see(event));
    for (const resource of ['/namespaces', definitions])
      for (const { key, object } of this.#store.values(resource)) this.#consider(resource, key, object);
  }

  close(): void {
    this.#unsubscribe();
    clearImmediate(this.#timer);
  }

  #see({ type, resource, key, object }: StoreEvent): void {
    if (resource === '/namespaces' || resource === definitions) {
      if (type !== 'DELETED') this.#consider(resource, key, object);
      return;
    }
    if (type !== 'DELETED') return;
    const { namespace } = object.metadata;
    if (namespace !== undefined) this.#again('/namespaces', namespace);
    const definition = resource.split('/').reverse().join('.');
    this.#again(definitions, definition);
  }

  #again(resource: string, key: string): void {
    const stored = this.#store.get(resource, key);
    if (stored !== undefined) this.#consider(resource, key, stored.object);
  }

  #consider(resource: string, key: string, object: AnyObject): void {
    if (object.metadata.deletionTimestamp === undefined) return;
    this.#pending.add(`${resource} ${key}`);
    this.#timer ??= setImmediate(() => this.#run());
  }

  #run(): void {
    this.#timer = undefined;
    const work = [...this.#pending];
    this.#pending.clear();
    for (const item of work) {
      const [resource = '', key = ''] = item.split(' ');
      try {
        if (resource === '/namespaces') this.#emptyNamespace(key);
        else this.#emptyDefinition(key);
      } catch (error) {
        this.#logger.error({ err: error, resource, key }, 'emptying it failed');
      }
    }
  }

  #emptyNamespace(name: string): void {
    let left = 0;
    for (const resource of [...this.#store.resources()])
      for (const { object } of [...this.#store.values(resource)])
        if (object.metadata.namespace === name) left += this.#delete(resource, object);
    if (left > 0) return;
    const stored = this.#store.get('/namespaces', name);
    if (stored === undefined || stored.object.metadata.deletionTimestamp === undefined) return;
    if ((stored.object.metadata.finalizers ?? []).length > 0) return;
    this.#store.remove('/namespaces', name);
    this.#logger.debug({ namespace: name }, 'namespace is empty and gone');
  }

  #emptyDefinition(name: string): void {
    const [kind] = this.#catalog.ofDefinition(name);
    if (kind === undefined) return;
    let left = 0;
    for (const { object } of [...this.#store.values(kind.id)]) left += this.#delete(kind.id, object);
    if (left === 0) removeFinalizer(this.#store, definitions, name, definitionFinalizer);
  }

  /** @returns 1 where the object is still there. */
  #delete(resource: string, object: AnyObject): number {
    const kind = this.#catalog.byId(resource);
    const { namespace, name = '' } = object.metadata;
    if (kind === undefined) return 0;
    return deleteObject(this.#store, { kind, namespace, name, dryRun: false }).gone ? 0 : 1;
  }
}
