import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Logger } from 'pino';
import type { Catalog } from '../catalog.ts';
import type { Objects } from '../objects.ts';
import type { World } from '../rules/rules.ts';
import { methodNotAllowed, noSuchPath, StatusError } from '../status.ts';
import type { Store } from '../storage/store.ts';
import { authorize, type Restriction } from './authorize.ts';
import { bind } from './bind.ts';
import { discover, versionInfo } from './discovery.ts';
import { Exchange } from './exchange.ts';
import { identify } from './identify.ts';
import { OpenApi } from './openapi.ts';
import { get, list } from './read.ts';
import { remove, removeAll } from './remove.ts';
import { parseRoute, type Route, type Verb, verbOf } from './route.ts';
import { scale } from './scale.ts';
import { type WatchTiming, watch } from './watch.ts';
import { create, patch, update } from './write.ts';

export interface DispatcherDeps {
  readonly store: Store;
  readonly world: World;
  readonly catalog: Catalog;
  readonly objects: Objects;
  readonly logger: Logger;
  readonly timing: WatchTiming;
  readonly signal: AbortSignal;
}

const healthPaths = /^\/(healthz|readyz|livez)(\/.*)?$/;

/** Leads each request to who answers it, and turns what is thrown on the way into a Status. */
export class Dispatcher {
  readonly #deps: DispatcherDeps;
  readonly #openApi: OpenApi;

  constructor(deps: DispatcherDeps) {
    this.#deps = deps;
    this.#openApi = new OpenApi(deps.catalog);
  }

  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const exchange = new Exchange(request, response);
    const { logger } = this.#deps;
    try {
      await this.#answer(exchange);
    } catch (error) {
      if (response.destroyed || request.errored) return;
      if (error instanceof StatusError) exchange.sendStatus(error.status);
      else {
        logger.error({ err: error, method: exchange.method, path: exchange.path }, 'a request failed');
        exchange.sendStatus(
          new StatusError(500, 'InternalError', 'Internal error occurred: see the API server’s log').status,
        );
      }
    }
    logger.debug({ method: exchange.method, path: exchange.path, code: response.statusCode }, 'request');
  }

  async #answer(exchange: Exchange): Promise<void> {
    const { catalog, world } = this.#deps;
    if (healthPaths.test(exchange.path)) {
      exchange.sendText(200, 'ok', 'text/plain; charset=utf-8');
      return;
    }
    const user = identify(exchange.request.socket);
    if (exchange.method === 'GET' && this.#answerMeta(exchange)) return;
    const route = parseRoute(exchange.path, catalog);
    if (route === undefined) throw noSuchPath();
    const verb = verbOf(exchange.method, route, exchange.flag('watch') === true);
    if (verb === undefined) throw methodNotAllowed();
    await this.#perform(exchange, verb, route, authorize(user, verb, route, world));
  }

  /** Answers what is about the API and not about objects. */
  #answerMeta(exchange: Exchange): boolean {
    if (exchange.path === '/version') exchange.send(200, versionInfo);
    else if (exchange.path.startsWith('/openapi/')) this.#openApi.answer(exchange);
    else return discover(exchange, this.#deps.catalog);
    return true;
  }

  async #perform(exchange: Exchange, verb: Verb, route: Route, restriction: Restriction | undefined): Promise<void> {
    const { store, timing, signal } = this.#deps;
    const { kind, subresource } = route;
    if (subresource === 'scale' && kind.id === 'apps/deployments')
      return scale(exchange, this.#deps, route, restriction);
    if (subresource === 'binding' && kind.id === '/pods') return bind(exchange, this.#deps, route);
    if (subresource !== '' && !(subresource === 'status' && kind.status)) throw noSuchPath();
    switch (verb) {
      case 'get':
        return get(exchange, store, route);
      case 'list':
        return list(exchange, store, route);
      case 'watch':
        return watch(exchange, store, route, timing, signal);
      case 'create':
        if (subresource !== '') throw methodNotAllowed();
        return create(exchange, this.#deps, route, restriction);
      case 'update':
        return update(exchange, this.#deps, route, restriction);
      case 'patch':
        return patch(exchange, this.#deps, route, restriction);
      case 'delete':
        if (subresource !== '') throw methodNotAllowed();
        return remove(exchange, store, route, restriction);
      case 'deletecollection':
        if (kind.id === '/namespaces') throw methodNotAllowed();
        return removeAll(exchange, store, route);
    }
  }
}
