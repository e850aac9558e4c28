import fastJsonPatch from 'fast-json-patch';
import { type AnyObject, isList, isObject, type JsonObject, objectOr } from '../../json.ts';
import type { ServedKind } from '../catalog.ts';
import type { FieldValidation } from '../decode.ts';
import { keyOf, type Objects, type WriteRequest } from '../objects.ts';
import { mergePatch } from '../patch/merge.ts';
import { applyObject, isApplyConfiguration } from '../patch/server-side-apply.ts';
import { strategicMerge } from '../patch/strategic.ts';
import { badRequest, invalid, noSuchPath, StatusError } from '../status.ts';
import type { Store } from '../storage/store.ts';
import { timestamp } from '../world.ts';
import type { Restriction } from './authorize.ts';
import type { Exchange } from './exchange.ts';
import { inVersion, sendObject } from './read.ts';
import type { Route } from './route.ts';

export interface WriteDeps {
  readonly store: Store;
  readonly objects: Objects;
}

/** POST to a collection. */
export async function create(
  exchange: Exchange,
  deps: WriteDeps,
  route: Route,
  restriction: Restriction | undefined,
): Promise<void> {
  const body = await exchange.body();
  const request = writeRequest(exchange, route, restriction);
  const namespace = namespaceFor(route, body);
  sendObject(exchange, route.kind, deps.objects.create(body, { ...request, namespace }), 201);
}

/** PUT of an object, or of its status. */
export async function update(
  exchange: Exchange,
  deps: WriteDeps,
  route: Route,
  restriction: Restriction | undefined,
): Promise<void> {
  const body = await exchange.body();
  const { kind, name = '' } = route;
  const request = { ...writeRequest(exchange, route, restriction), name, subresource: subresourceOf(route) };
  sendObject(
    exchange,
    kind,
    deps.objects.update(() => body, request),
  );
}

const patchTypes = {
  'application/json-patch+json': 'json',
  'application/merge-patch+json': 'merge',
  'application/strategic-merge-patch+json': 'strategic',
  'application/apply-patch+yaml': 'apply',
} as const;

/** PATCH of an object, or of its status; all four patch types. */
export async function patch(
  exchange: Exchange,
  deps: WriteDeps,
  route: Route,
  restriction: Restriction | undefined,
): Promise<void> {
  const { kind, name = '' } = route;
  const type = Object.entries(patchTypes).find(([mediaType]) => mediaType === exchange.contentType)?.[1];
  if (type === undefined || (type === 'strategic' && kind.custom))
    throw new StatusError(
      415,
      'UnsupportedMediaType',
      `the body of the request was in an unknown format - accepted media types include: ${Object.keys(patchTypes).join(', ')}`,
    );
  const body = await exchange.body();
  const request = { ...writeRequest(exchange, route, restriction), name, subresource: subresourceOf(route) };
  if (type === 'apply') {
    apply(exchange, deps, route, request, body);
    return;
  }
  const change = (old: AnyObject): unknown => {
    const served = inVersion(kind, old);
    if (type === 'json') return jsonPatch(kind, served, body);
    if (!isObject(body)) throw badRequest('the body of a patch must be a JSON object');
    return type === 'merge' ? mergePatch(served, body) : strategicMerge(kind.shape, served, body);
  };
  sendObject(exchange, kind, deps.objects.update(change, request));
}

function apply(
  exchange: Exchange,
  { store, objects }: WriteDeps,
  { kind }: Route,
  request: WriteRequest & { readonly name: string; readonly subresource: '' | 'status' },
  body: unknown,
): void {
  const manager = exchange.parameter('fieldManager');
  const force = exchange.flag('force') ?? false;
  if (manager === undefined)
    throw invalid({ group: 'meta.k8s.io', version: 'v1', kind: 'PatchOptions', plural: 'patchoptions' }, '', [
      { field: 'fieldManager', reason: 'FieldValueRequired', message: 'Required value: is required for apply patch' },
    ]);
  if (!isApplyConfiguration(body)) throw badRequest('an applied configuration must have apiVersion and kind');
  const { namespace, name, subresource } = request;
  const applied = configurationOf(body, request);
  const options = {
    target: kind,
    shape: kind.shape,
    apiVersion: kind.apiVersion,
    manager,
    force,
    subresource,
    now: timestamp(),
  };
  if (store.get(kind.id, keyOf(namespace, name)) === undefined && subresource === '') {
    const made = objects.create(applyObject(undefined, applied, options), request);
    sendObject(exchange, kind, made, 201);
    return;
  }
  const change = (old: AnyObject) => applyObject(inVersion(kind, old), applied, options);
  sendObject(exchange, kind, objects.update(change, { ...request, writesManagedFields: true }));
}

/** The configuration with the name and namespace of the URL, and without what cannot be applied. */
function configurationOf(
  body: JsonObject,
  { kind, name, namespace, subresource }: WriteRequest & { name: string; subresource: string },
): JsonObject {
  const metadata: JsonObject = { ...objectOr(body.metadata) };
  if (metadata.managedFields !== undefined) throw badRequest('metadata.managedFields must be nil');
  metadata.name ??= name;
  if (namespace !== undefined) metadata.namespace ??= namespace;
  const result: JsonObject = { ...body, metadata };
  if (kind.status && subresource === '') delete result.status;
  return result;
}

function jsonPatch(kind: ServedKind, object: AnyObject, operations: unknown): unknown {
  if (!isList(operations)) throw badRequest('the body of a JSON patch must be a list of operations');
  if (operations.length > 10_000) throw badRequest('a JSON patch may have no more than 10000 operations');
  const checked = operations.map((operation) => {
    if (!isOperation(operation)) throw badRequest('an operation of a JSON patch must have op and path');
    return operation;
  });
  try {
    return fastJsonPatch.applyPatch(structuredClone<unknown>(object), checked, true, true, true).newDocument;
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const why = error.message.split('\n')[0] ?? '';
    throw new StatusError(
      422,
      'Invalid',
      `the server rejected our request due to an error in our request: ${kind.kind}: ${why}`,
      {},
      error,
    );
  }
}

const operationNames = ['add', 'remove', 'replace', 'move', 'copy', 'test'];

function isOperation(value: unknown): value is fastJsonPatch.Operation {
  return isObject(value) && typeof value.path === 'string' && operationNames.includes(String(value.op));
}

function subresourceOf({ kind, subresource }: Route): '' | 'status' {
  if (subresource === '') return '';
  if (subresource === 'status' && kind.status) return 'status';
  throw noSuchPath();
}

/** A create without a namespace in its path takes the object's, as no client sends such a request for a kind that has namespaces. */
function namespaceFor({ kind, namespace }: Route, body: unknown): string | undefined {
  if (!kind.namespaced || namespace !== undefined) return namespace;
  const own = isObject(body) ? objectOr(body.metadata).namespace : undefined;
  if (typeof own === 'string' && own !== '') return own;
  throw badRequest('a namespace is required');
}

function writeRequest(
  exchange: Exchange,
  { kind, namespace }: Route,
  restriction: Restriction | undefined,
): WriteRequest {
  return {
    kind,
    namespace,
    validation: validationOf(exchange),
    dryRun: isDryRun(exchange),
    warn: (message) => exchange.warn(message),
    ...(restriction === undefined ? {} : { restrict: restriction }),
  };
}

function validationOf(exchange: Exchange): FieldValidation {
  const text = exchange.parameter('fieldValidation') ?? 'Warn';
  if (text === 'Strict' || text === 'Warn' || text === 'Ignore') return text;
  throw badRequest(`fieldValidation: ${JSON.stringify(text)} is none of Strict, Warn, Ignore`);
}

/** @throws {StatusError} `BadRequest` for a value that is not known: better than to do it for real. */
export function isDryRun(exchange: Exchange): boolean {
  const values = exchange.query.getAll('dryRun').filter((value) => value !== '');
  if (values.some((value) => value !== 'All')) throw badRequest(`dryRun: ${JSON.stringify(values)} is not All`);
  return values.length > 0;
}
