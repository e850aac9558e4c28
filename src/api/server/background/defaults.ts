import type { Catalog } from '../catalog.ts';
import type { Objects } from '../objects.ts';
import type { Store } from '../storage/store.ts';

const systemNamespaces = ['default', 'kube-system', 'kube-public', 'kube-node-lease'];

/** Keeps what every cluster has: the system's namespaces, and in each namespace a service account `default`. */
export class ClusterDefaults {
  readonly #store: Store;
  readonly #catalog: Catalog;
  readonly #objects: Objects;
  readonly #unsubscribe: () => void;
  #closed = false;

  constructor(deps: { store: Store; catalog: Catalog; objects: Objects }) {
    this.#store = deps.store;
    this.#catalog = deps.catalog;
    this.#objects = deps.objects;
    // Put back where somebody deletes it; not within the deletion, whose event is still on its way to the watchers.
    this.#unsubscribe = this.#store.subscribe('/serviceaccounts', ({ type, object }) => {
      const { name, namespace = '' } = object.metadata;
      if (type === 'DELETED' && name === 'default') setImmediate(() => this.ensureAccount(namespace));
    });
  }

  close(): void {
    this.#closed = true;
    this.#unsubscribe();
  }

  /** Makes what is missing. */
  ensure(): void {
    for (const name of systemNamespaces)
      if (this.#store.get('/namespaces', name) === undefined)
        this.#create('/namespaces', undefined, { apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
    for (const { key } of this.#store.list('/namespaces')) this.ensureAccount(key);
  }

  ensureAccount(namespace: string): void {
    if (this.#closed) return;
    const found = this.#store.get('/namespaces', namespace);
    if (found === undefined || found.object.metadata.deletionTimestamp !== undefined) return;
    if (this.#store.get('/serviceaccounts', `${namespace}/default`) !== undefined) return;
    const account = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'default' } };
    this.#create('/serviceaccounts', namespace, account);
  }

  #create(id: string, namespace: string | undefined, object: unknown): void {
    const kind = this.#catalog.byId(id);
    if (kind !== undefined)
      this.#objects.create(object, { kind, namespace, validation: 'Strict', dryRun: false, warn: () => {} });
  }
}
