import type { FieldIssue } from '../issue.ts';
import type { KubeObject, Live, Resource } from '../kinds.ts';

/** How to reach an API server, and as whom. PEM texts. */
export interface ApiEndpoint {
  /** `https://host:port`, without a path. */
  readonly url: string;
  readonly ca: string;
  readonly cert?: string;
  readonly key?: string;
  /** For servers that know their callers by a bearer token (a pod's service account). Read again for each request. */
  readonly token?: () => string;
  /** The name to verify the server's certificate against, where it is not the URL's host. */
  readonly serverName?: string;
  /** A Unix socket to connect to in place of the URL's host; whose certificate is expected stays the same. */
  readonly socketPath?: string;
}

/**
 * An object as it came, and what this program makes of it. An object of a newer server, with an enum value or a type that
 * this program does not know, has no `object`: whoever decides on security by it must fail closed, with `raw` and `issues` at hand.
 */
export interface Entry<T extends KubeObject> {
  /** `namespace/name`, or `name`. */
  readonly key: string;
  /** As it came; unknown fields are all there. */
  readonly raw: KubeObject;
  readonly object: Live<T> | undefined;
  /** Unknown fields (these alone do not make `object` undefined) and whatever else is not understood. */
  readonly issues: readonly FieldIssue[];
}

export interface ListOptions {
  /** Absent: all namespaces. */
  readonly namespace?: string;
  /** Kubernetes' own grammar: `app=web,tier in (a,b),!old`. */
  readonly labelSelector?: string;
  /** `spec.nodeName=n1,status.phase!=Failed`. */
  readonly fieldSelector?: string;
  readonly signal?: AbortSignal;
}

export interface PagedListOptions extends ListOptions {
  /** Objects per request; the pages are one consistent snapshot. Default 500. */
  readonly pageSize?: number;
  /** `0`: any state that the server has at hand; another: not older than that. Default: the newest. */
  readonly resourceVersion?: string;
}

export interface ObjectList<T extends KubeObject> {
  /** The state of the cluster that this list is, and where a watch goes on from. */
  readonly resourceVersion: string;
  readonly entries: readonly Entry<T>[];
}

export interface WatchOptions extends ListOptions {
  /** Events after this version. Absent: from now, preceded by all that is there as ADDED. */
  readonly resourceVersion?: string;
  /** Ask the server to end the watch after so long. Default 5 to 10 minutes, at random. */
  readonly timeoutSeconds?: number;
  /** Called when the server has taken the watch, which may be long before there is anything to tell. */
  readonly onOpen?: () => void;
  /** No byte for so long, bookmarks included, means that the connection is dead. Default 150 s (bookmarks come once a minute). */
  readonly idleTimeoutMs?: number;
}

export type WatchEvent<T extends KubeObject> =
  | { readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'; readonly entry: Entry<T>; readonly resourceVersion: string }
  | { readonly type: 'BOOKMARK'; readonly resourceVersion: string };

/** Which object. `namespace` only for kinds that have one. */
export interface ObjectRef {
  readonly namespace?: string | undefined;
  readonly name: string;
}

export interface WriteOptions {
  /** Who writes: shown in managedFields. Default `myelin`. */
  readonly fieldManager?: string;
  /** Check everything, store nothing. */
  readonly dryRun?: boolean;
  readonly signal?: AbortSignal;
}

export interface JsonPatchOperation {
  readonly op: 'add' | 'remove' | 'replace' | 'test' | 'move' | 'copy';
  readonly path: string;
  readonly from?: string;
  readonly value?: unknown;
}

export type Patch =
  /** RFC 7386. */
  | { readonly type: 'merge'; readonly patch: object }
  /** Kubernetes' own: lists with keys merge element by element. Built-in kinds only. */
  | { readonly type: 'strategic'; readonly patch: object }
  /** RFC 6902. */
  | { readonly type: 'json'; readonly patch: readonly JsonPatchOperation[] }
  /** Server-side apply; `force` takes fields over from other managers. */
  | { readonly type: 'apply'; readonly patch: object; readonly force?: boolean };

export interface DeleteOptions {
  /** Pods only: 0 removes the object at once. */
  readonly gracePeriodSeconds?: number;
  /** Refuse (`Conflict`) where the object that has the name is another one by now. */
  readonly uid?: string;
  readonly propagation?: 'Background' | 'Foreground' | 'Orphan';
  readonly signal?: AbortSignal;
}

/** The Kubernetes API as this project uses it. All calls throw ApiError. */
export interface Api {
  list<T extends KubeObject>(resource: Resource<T>, options?: PagedListOptions): Promise<ObjectList<T>>;
  /** @throws {ApiError} `NotFound`; `Malformed` where the object is not one that this program understands. */
  get<T extends KubeObject>(resource: Resource<T>, ref: ObjectRef, signal?: AbortSignal): Promise<Live<T>>;
  create<T extends KubeObject>(resource: Resource<T>, object: T, options?: WriteOptions): Promise<Live<T>>;
  /** Writes the whole object. With `metadata.resourceVersion`, refused (`Conflict`) where it was changed since. */
  replace<T extends KubeObject>(resource: Resource<T>, object: T, options?: WriteOptions): Promise<Live<T>>;
  replaceStatus<T extends KubeObject>(resource: Resource<T>, object: T, options?: WriteOptions): Promise<Live<T>>;
  patch<T extends KubeObject>(
    resource: Resource<T>,
    ref: ObjectRef,
    patch: Patch,
    options?: WriteOptions,
  ): Promise<Live<T>>;
  patchStatus<T extends KubeObject>(
    resource: Resource<T>,
    ref: ObjectRef,
    patch: Patch,
    options?: WriteOptions,
  ): Promise<Live<T>>;
  /** Asks for deletion; finalizers and a pod's grace may keep the object for a while. */
  delete<T extends KubeObject>(resource: Resource<T>, ref: ObjectRef, options?: DeleteOptions): Promise<void>;
  /** Ends when the server ends the watch; throws ApiError (`Expired`: list again) when it fails. */
  watch<T extends KubeObject>(resource: Resource<T>, options?: WatchOptions): AsyncIterable<WatchEvent<T>>;
}

export interface Change<T extends KubeObject> {
  readonly kind: 'add' | 'update' | 'delete';
  /** The new state; on `delete`, the last one. */
  readonly entry: Entry<T>;
  /** The state before, on `update`. */
  readonly previous: Entry<T> | undefined;
}

export interface ReflectorOptions<T extends KubeObject> {
  readonly resource: Resource<T>;
  /** The API need not know the kind: while it does not, there are none of it, and it is asked again when it is defined. */
  readonly optional?: boolean;
  /** How long to wait before asking again where the definition cannot be watched. Default: longer each time, to a minute. */
  readonly absenceMs?: number;
  readonly namespace?: string;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
  /** Index name → the values under which an entry is to be found. */
  readonly indexes?: Readonly<Record<string, (entry: Entry<T>) => readonly string[]>>;
}

/**
 * A copy of what the API has of one kind, kept up to date by list and watch. While the API is away the copy stays as it was.
 */
export interface ObjectStore<T extends KubeObject> {
  /** @param key `namespace/name`, or `name`. */
  get(key: string): Entry<T> | undefined;
  /** All entries, also those that were not understood. */
  entries(): Iterable<Entry<T>>;
  /** Those that were understood. */
  objects(): Live<T>[];
  /** @throws {ApiError} `BadRequest` for an index that was not declared. */
  byIndex(index: string, value: string): Entry<T>[];
  readonly size: number;
  /** Calls `listener` for every change from now on, in order; what is there already first, as `add`. @returns Ends it. */
  onChange(listener: (change: Change<T>) => void): () => void;
}

export interface ReflectorHealth {
  /** The first list is in. */
  readonly synced: boolean;
  /** The last time that the server was heard from (Unix milliseconds), 0 for never. */
  readonly lastContact: number;
  /** Why the connection is down at the moment. */
  readonly error: string | undefined;
  /** How often list+watch had to start from nothing. */
  readonly relists: number;
}
