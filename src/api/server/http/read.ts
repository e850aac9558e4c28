import type { AnyObject } from '../../json.ts';
import type { ServedKind } from '../catalog.ts';
import { keyOf } from '../objects.ts';
import { badRequest, expired, notFound, tooLargeResourceVersion } from '../status.ts';
import type { Store, Stored } from '../storage/store.ts';
import type { Exchange } from './exchange.ts';
import { type Form, negotiate } from './negotiate.ts';
import type { Route } from './route.ts';
import { type Selection, selectionOf } from './select.ts';
import { partialOf, tableOf } from './table.ts';

/** @returns The object under the apiVersion that was asked for. */
export function inVersion(kind: ServedKind, object: AnyObject): AnyObject {
  return object.apiVersion === kind.apiVersion ? object : { ...object, apiVersion: kind.apiVersion };
}

/** Answers with one object, in the form that the request accepts. */
export function sendObject(exchange: Exchange, kind: ServedKind, object: AnyObject, code = 200): void {
  const form = negotiate(exchange.request.headers.accept, exchange.parameter('includeObject'));
  const served = inVersion(kind, object);
  if (form.as === 'table')
    exchange.send(code, tableOf(kind, [served], form, { resourceVersion: object.metadata.resourceVersion }));
  else exchange.send(code, form.as === 'metadata' ? partialOf(served, form.apiVersion) : served);
}

/** GET of one object. */
export function get(exchange: Exchange, store: Store, { kind, namespace, name = '' }: Route): void {
  const asked = exchange.parameter('resourceVersion');
  if (asked !== undefined) checkNotNewer(asked, store);
  const stored = store.get(kind.id, keyOf(namespace, name));
  if (stored === undefined) throw notFound(kind, name);
  sendObject(exchange, kind, stored.object);
}

interface Page {
  readonly items: readonly Stored[];
  readonly revision: number;
  readonly next: string | undefined;
  readonly remaining: number | undefined;
}

/** GET of a collection: selectors, pages of one snapshot, resourceVersion semantics. */
export function list(exchange: Exchange, store: Store, route: Route): void {
  const form = negotiate(exchange.request.headers.accept, exchange.parameter('includeObject'));
  const page = pageOf(exchange, store, route, selectionOf(exchange, route));
  const metadata = {
    resourceVersion: String(page.revision),
    ...(page.next === undefined ? {} : { continue: page.next }),
    ...(page.remaining === undefined ? {} : { remainingItemCount: page.remaining }),
  };
  const { kind } = route;
  if (form.as === 'objects') exchange.sendText(200, listText(kind, page.items, metadata));
  else exchange.send(200, listIn(form, kind, page.items, metadata));
}

/** Objects are kept as JSON, so a list is put together without serialising any of them. */
function listText(kind: ServedKind, items: readonly Stored[], metadata: Record<string, unknown>): string {
  const head = JSON.stringify({ kind: kind.listKind, apiVersion: kind.apiVersion, metadata });
  const texts =
    kind.apiVersion === kind.storageApiVersion
      ? items.map(({ json }) => json)
      : items.map(({ object }) => JSON.stringify(inVersion(kind, object)));
  return `${head.slice(0, -1)},"items":[${texts.join(',')}]}\n`;
}

function listIn(
  form: Exclude<Form, { as: 'objects' }>,
  kind: ServedKind,
  items: readonly Stored[],
  metadata: Record<string, unknown>,
) {
  const objects = items.map(({ object }) => inVersion(kind, object));
  if (form.as === 'table') return tableOf(kind, objects, form, metadata);
  return {
    kind: 'PartialObjectMetadataList',
    apiVersion: form.apiVersion,
    metadata,
    items: objects.map((object) => partialOf(object, form.apiVersion)),
  };
}

function pageOf(exchange: Exchange, store: Store, { kind }: Route, selection: Selection): Page {
  const limit = exchange.number('limit') ?? 0;
  const token = exchange.parameter('continue');
  const { revision, after } =
    token === undefined ? { revision: startRevision(exchange, store), after: '' } : readToken(token);
  const snapshot = store.listAt(kind.id, revision);
  if (snapshot === undefined)
    throw expired(
      token === undefined
        ? `too old resource version: ${revision} (${store.oldestRevision})`
        : 'The provided continue parameter is too old to display a consistent list result. Start again without it.',
    );
  const rest = after === '' ? snapshot : snapshot.slice(firstAfter(snapshot, after));
  const items: Stored[] = [];
  for (const [i, stored] of rest.entries()) {
    if (!selection.matches(stored.object)) continue;
    if (limit > 0 && items.length === limit) {
      const last = items.at(-1)?.key ?? '';
      const next = Buffer.from(JSON.stringify({ v: revision, k: last })).toString('base64url');
      return { items, revision, next, remaining: selection.all ? rest.length - i : undefined };
    }
    items.push(stored);
  }
  return { items, revision, next: undefined, remaining: undefined };
}

function firstAfter(sorted: readonly Stored[], key: string): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sorted[middle]?.key ?? '') <= key) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The revision that a list without a continue token is of. */
function startRevision(exchange: Exchange, store: Store): number {
  const asked = exchange.parameter('resourceVersion');
  const match = exchange.parameter('resourceVersionMatch');
  if (match !== undefined && match !== 'Exact' && match !== 'NotOlderThan')
    throw badRequest(`resourceVersionMatch: ${JSON.stringify(match)} is neither Exact nor NotOlderThan`);
  if (match !== undefined && asked === undefined)
    throw badRequest('resourceVersionMatch is forbidden unless resourceVersion is provided');
  if (asked === undefined) return store.revision;
  const revision = checkNotNewer(asked, store);
  if (match === 'Exact' && revision === 0)
    throw badRequest('resourceVersionMatch "Exact" is forbidden for resourceVersion "0"');
  return match === 'Exact' ? revision : store.revision;
}

/** @throws {StatusError} `BadRequest`, or `Timeout` for a version that is not there yet. */
export function checkNotNewer(text: string, store: Store): number {
  if (!/^\d{1,15}$/.test(text)) throw badRequest(`resourceVersion: ${JSON.stringify(text)} is not a resource version`);
  const revision = Number(text);
  if (revision > store.revision) throw tooLargeResourceVersion(revision, store.revision);
  return revision;
}

function readToken(token: string): { revision: number; after: string } {
  try {
    const value: unknown = JSON.parse(Buffer.from(token, 'base64url').toString('utf8'));
    if (typeof value === 'object' && value !== null && 'v' in value && 'k' in value)
      if (typeof value.v === 'number' && typeof value.k === 'string') return { revision: value.v, after: value.k };
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw badRequest('continue: not a token of this server');
}
