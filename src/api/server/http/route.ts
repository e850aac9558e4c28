import type { Catalog, ServedKind } from '../catalog.ts';
import { badRequest, noSuchPath } from '../status.ts';

export type Verb = 'get' | 'list' | 'watch' | 'create' | 'update' | 'patch' | 'delete' | 'deletecollection';

/** What a request is about, read from its path. */
export interface Route {
  readonly kind: ServedKind;
  /** Undefined for kinds without a namespace, and for lists over all namespaces. */
  readonly namespace: string | undefined;
  /** Undefined for a collection. */
  readonly name: string | undefined;
  /** `` for the object itself. */
  readonly subresource: string;
}

/** @returns undefined where the path is not one of objects (`/version`, `/apis`). @throws {StatusError} `NotFound` */
export function parseRoute(path: string, catalog: Catalog): Route | undefined {
  const segments = path.split('/').slice(1).map(decodeSegment);
  if (segments.at(-1) === '') segments.pop();
  const [root, ...rest] = segments;
  if (root === 'api' && rest.length >= 2) return routeIn(catalog, '', rest[0] ?? '', rest.slice(1));
  if (root === 'apis' && rest.length >= 3) return routeIn(catalog, rest[0] ?? '', rest[1] ?? '', rest.slice(2));
  return undefined;
}

function decodeSegment(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (error) {
    if (error instanceof URIError) throw badRequest(`${JSON.stringify(text)} is not a URL path segment`, error);
    throw error;
  }
}

function routeIn(catalog: Catalog, group: string, version: string, segments: readonly string[]): Route {
  const [first = '', second, third, ...more] = segments;
  const namespaceItself = third === undefined || third === 'status' || third === 'finalize';
  const inNamespace = first === 'namespaces' && second !== undefined && !(group === '' && namespaceItself);
  const [plural = '', name, subresource = '', ...extra] = inNamespace
    ? [third ?? '', ...more]
    : [first, second, third, ...more].filter((segment) => segment !== undefined);
  const kind = catalog.find(group, version, plural);
  if (kind === undefined || extra.length > 0 || name === '') throw noSuchPath();
  if (kind.namespaced !== inNamespace && (kind.namespaced ? name !== undefined : inNamespace)) throw noSuchPath();
  return { kind, namespace: inNamespace ? second : undefined, name, subresource };
}

/** @returns undefined for a method that collections or objects do not have. */
export function verbOf(method: string, route: Route, watch: boolean): Verb | undefined {
  const one = route.name !== undefined;
  switch (method) {
    case 'GET':
    case 'HEAD':
      return one && !watch ? 'get' : watch ? 'watch' : 'list';
    case 'POST':
      return one && route.subresource === '' ? undefined : 'create';
    case 'PUT':
      return one ? 'update' : undefined;
    case 'PATCH':
      return one ? 'patch' : undefined;
    case 'DELETE':
      return one ? 'delete' : 'deletecollection';
    default:
      return undefined;
  }
}
