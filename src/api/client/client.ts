import { isList, isObject, objectOr, stringOr } from '../json.ts';
import { apiVersionOf, type KubeObject, type Live, type Resource } from '../kinds.ts';
import { toEntry, toObject } from './entry.ts';
import { ApiError, isApiError } from './error.ts';
import { failureOf } from './failure.ts';
import { Transport } from './transport.ts';
import type {
  Api,
  ApiEndpoint,
  DeleteOptions,
  Entry,
  ListOptions,
  ObjectList,
  ObjectRef,
  PagedListOptions,
  Patch,
  WatchEvent,
  WatchOptions,
  WriteOptions,
} from './types.ts';

const defaultPageSize = 500;
const defaultIdleMs = 150_000;

const patchTypes = {
  json: 'application/json-patch+json',
  merge: 'application/merge-patch+json',
  strategic: 'application/strategic-merge-patch+json',
  apply: 'application/apply-patch+yaml',
} as const;

/** The one client of the Kubernetes API: the embedded server, a real kube-apiserver, an edge cache. */
export class ApiClient implements Api {
  readonly #transport: Transport;

  constructor(endpoint: ApiEndpoint) {
    this.#transport = new Transport(endpoint);
  }

  /** Goes on with renewed credentials, for connections from now on. */
  useEndpoint(endpoint: ApiEndpoint): void {
    this.#transport.use(endpoint);
  }

  /** Drops all connections. Calls that are under way fail. */
  close(): void {
    this.#transport.close();
  }

  /** @returns The server's version, as in `v1.32.0`. @throws {ApiError} */
  async serverVersion(signal?: AbortSignal): Promise<string> {
    const body = await this.#transport.call({ method: 'GET', path: '/version', signal });
    return stringOr(objectOr(body).gitVersion, 'unknown');
  }

  async list<T extends KubeObject>(resource: Resource<T>, options: PagedListOptions = {}): Promise<ObjectList<T>> {
    try {
      return await this.#pages(resource, options, options.pageSize ?? defaultPageSize);
    } catch (error) {
      // The snapshot that the pages are of has gone; one page cannot.
      if (!isApiError(error, 'Expired', 'Gone')) throw error;
      return this.#pages(resource, options, 0);
    }
  }

  async #pages<T extends KubeObject>(
    resource: Resource<T>,
    options: PagedListOptions,
    limit: number,
  ): Promise<ObjectList<T>> {
    const entries: Entry<T>[] = [];
    let next = '';
    for (;;) {
      const body = await this.#transport.call({
        method: 'GET',
        path: pathOf(resource, options.namespace),
        query: {
          ...selectors(options),
          limit: limit || undefined,
          continue: next || undefined,
          resourceVersion: next === '' ? options.resourceVersion : undefined,
        },
        signal: options.signal,
      });
      if (!isObject(body)) throw new ApiError('Malformed', `a list of ${resource.plural} is not an object`);
      const metadata = objectOr(body.metadata);
      for (const item of isList(body.items) ? body.items : []) entries.push(toEntry(resource, item));
      next = stringOr(metadata.continue, '');
      if (next === '') return { resourceVersion: stringOr(metadata.resourceVersion, ''), entries };
    }
  }

  async get<T extends KubeObject>(resource: Resource<T>, ref: ObjectRef, signal?: AbortSignal): Promise<Live<T>> {
    const body = await this.#transport.call({ method: 'GET', path: pathOf(resource, ref.namespace, ref.name), signal });
    return toObject(resource, body);
  }

  async create<T extends KubeObject>(resource: Resource<T>, object: T, options: WriteOptions = {}): Promise<Live<T>> {
    const path = pathOf(resource, namespaceOf(resource, object));
    return this.#write(resource, 'POST', path, object, options);
  }

  async replace<T extends KubeObject>(resource: Resource<T>, object: T, options: WriteOptions = {}): Promise<Live<T>> {
    const path = pathOf(resource, namespaceOf(resource, object), object.metadata.name ?? '');
    return this.#write(resource, 'PUT', path, object, options);
  }

  async replaceStatus<T extends KubeObject>(
    resource: Resource<T>,
    object: T,
    options: WriteOptions = {},
  ): Promise<Live<T>> {
    const path = `${pathOf(resource, namespaceOf(resource, object), object.metadata.name ?? '')}/status`;
    return this.#write(resource, 'PUT', path, object, options);
  }

  async patch<T extends KubeObject>(
    resource: Resource<T>,
    ref: ObjectRef,
    patch: Patch,
    options: WriteOptions = {},
  ): Promise<Live<T>> {
    return this.#patch(resource, pathOf(resource, ref.namespace, ref.name), patch, options);
  }

  async patchStatus<T extends KubeObject>(
    resource: Resource<T>,
    ref: ObjectRef,
    patch: Patch,
    options: WriteOptions = {},
  ): Promise<Live<T>> {
    return this.#patch(resource, `${pathOf(resource, ref.namespace, ref.name)}/status`, patch, options);
  }

  async #patch<T extends KubeObject>(
    resource: Resource<T>,
    path: string,
    patch: Patch,
    options: WriteOptions,
  ): Promise<Live<T>> {
    const force = patch.type === 'apply' ? patch.force : undefined;
    return this.#write(resource, 'PATCH', path, patch.patch, options, { contentType: patchTypes[patch.type], force });
  }

  async #write<T extends KubeObject>(
    resource: Resource<T>,
    method: 'POST' | 'PUT' | 'PATCH',
    path: string,
    body: unknown,
    options: WriteOptions,
    extra: { readonly contentType?: string; readonly force?: boolean | undefined } = {},
  ): Promise<Live<T>> {
    const answer = await this.#transport.call({
      ...{ method, path, body, signal: options.signal },
      ...(extra.contentType === undefined ? {} : { contentType: extra.contentType }),
      query: {
        fieldManager: options.fieldManager ?? 'myelin',
        fieldValidation: 'Strict',
        dryRun: options.dryRun === true ? 'All' : undefined,
        force: extra.force,
      },
    });
    return toObject(resource, options.dryRun === true ? withDryRunVersion(answer) : answer);
  }

  async delete<T extends KubeObject>(
    resource: Resource<T>,
    ref: ObjectRef,
    options: DeleteOptions = {},
  ): Promise<void> {
    const { gracePeriodSeconds, uid, propagation } = options;
    await this.#transport.call({
      method: 'DELETE',
      path: pathOf(resource, ref.namespace, ref.name),
      body: {
        apiVersion: 'v1',
        kind: 'DeleteOptions',
        gracePeriodSeconds,
        propagationPolicy: propagation,
        preconditions: uid === undefined ? undefined : { uid },
      },
      signal: options.signal,
    });
  }

  async *watch<T extends KubeObject>(resource: Resource<T>, options: WatchOptions = {}): AsyncGenerator<WatchEvent<T>> {
    const path = pathOf(resource, options.namespace);
    const query = {
      ...selectors(options),
      watch: true,
      allowWatchBookmarks: true,
      resourceVersion: options.resourceVersion,
      timeoutSeconds: options.timeoutSeconds ?? 300 + Math.floor(Math.random() * 300),
    };
    const request = { method: 'GET', path, query, signal: options.signal } as const;
    for await (const line of this.#transport.lines(request, options.idleTimeoutMs ?? defaultIdleMs, options.onOpen))
      yield readEvent(resource, path, line);
  }
}

function readEvent<T extends KubeObject>(resource: Resource<T>, path: string, line: string): WatchEvent<T> {
  const event = objectOr(parseLine(path, line));
  const object = objectOr(event.object);
  const resourceVersion = stringOr(objectOr(object.metadata).resourceVersion, '');
  switch (event.type) {
    case 'ADDED':
    case 'MODIFIED':
    case 'DELETED':
      return { type: event.type, entry: toEntry(resource, object), resourceVersion };
    case 'BOOKMARK':
      return { type: 'BOOKMARK', resourceVersion };
    case 'ERROR':
      throw failureOf(Number(object.code ?? 500), object, `watch ${path}`);
    default:
      throw new ApiError('Malformed', `watch ${path}: an event of type ${JSON.stringify(event.type)}`);
  }
}

function parseLine(path: string, line: string): unknown {
  try {
    return JSON.parse(line);
  } catch (cause) {
    throw new ApiError('Malformed', `watch ${path}: an event that is not JSON`, { cause });
  }
}

/** What a dry run would have created has no version: nothing was stored. */
function withDryRunVersion(answer: unknown): unknown {
  const object = objectOr(answer);
  return { ...object, metadata: { resourceVersion: '0', ...objectOr(object.metadata) } };
}

function selectors({ labelSelector, fieldSelector }: ListOptions) {
  return { labelSelector, fieldSelector };
}

function namespaceOf(resource: Resource, object: KubeObject): string | undefined {
  if (!resource.namespaced) return undefined;
  const { namespace, name } = object.metadata;
  if (namespace) return namespace;
  throw new ApiError('BadRequest', `${resource.kind} ${name ?? ''} has no metadata.namespace`);
}

/** @returns The path of a collection, or of one object. @throws {ApiError} `BadRequest` for an object without a name. */
function pathOf(resource: Resource, namespace?: string, name?: string): string {
  const root = resource.group === '' ? '/api/' : '/apis/';
  const within = namespace === undefined || !resource.namespaced ? '' : `/namespaces/${encodeURIComponent(namespace)}`;
  if (name === '') throw new ApiError('BadRequest', `a ${resource.kind} without a name cannot be addressed`);
  const one = name === undefined ? '' : `/${encodeURIComponent(name)}`;
  return `${root}${apiVersionOf(resource)}${within}/${resource.plural}${one}`;
}
