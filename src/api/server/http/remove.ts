import { isObject, type JsonObject, objectOr } from '../../json.ts';
import { type DeletionRequest, deleteObject } from '../deletion.ts';
import { badRequest, success } from '../status.ts';
import type { Store } from '../storage/store.ts';
import type { Restriction } from './authorize.ts';
import type { Exchange } from './exchange.ts';
import { sendObject } from './read.ts';
import type { Route } from './route.ts';
import { selectionOf } from './select.ts';
import { isDryRun } from './write.ts';

type Options = Pick<DeletionRequest, 'gracePeriodSeconds' | 'propagation' | 'preconditions' | 'dryRun'>;

/** DELETE of one object. */
export async function remove(
  exchange: Exchange,
  store: Store,
  route: Route,
  restriction: Restriction | undefined,
): Promise<void> {
  const options = await readOptions(exchange);
  const { kind, namespace, name = '' } = route;
  const { object, gone } = deleteObject(store, {
    ...{ kind, namespace, name, ...options },
    ...(restriction === undefined ? {} : { restrict: (old) => restriction(undefined, old) }),
  });
  if (!gone) {
    sendObject(exchange, kind, object);
    return;
  }
  const group = kind.group === '' ? {} : { group: kind.group };
  exchange.sendStatus(success({ name, ...group, kind: kind.plural, uid: object.metadata.uid ?? '' }));
}

/** DELETE of all objects of a collection that the selectors match. */
export async function removeAll(exchange: Exchange, store: Store, route: Route): Promise<void> {
  const options = await readOptions(exchange);
  const { kind } = route;
  const selection = selectionOf(exchange, route);
  for (const { object } of store.list(kind.id)) {
    const { namespace, name = '' } = object.metadata;
    if (selection.matches(object)) deleteObject(store, { kind, namespace, name, ...options });
  }
  exchange.sendStatus(success({ kind: kind.plural }));
}

async function readOptions(exchange: Exchange): Promise<Options> {
  const body = objectOr(await exchange.body());
  const grace = exchange.number('gracePeriodSeconds') ?? body.gracePeriodSeconds ?? undefined;
  if (grace !== undefined && (typeof grace !== 'number' || !Number.isInteger(grace) || grace < 0))
    throw badRequest('gracePeriodSeconds must be a whole number that is not negative');
  return {
    gracePeriodSeconds: grace,
    propagation: propagationOf(exchange.parameter('propagationPolicy') ?? body.propagationPolicy, body),
    preconditions: preconditionsOf(body.preconditions),
    dryRun: isDryRun(exchange) || (Array.isArray(body.dryRun) && body.dryRun.includes('All')),
  };
}

function propagationOf(asked: unknown, body: JsonObject): Options['propagation'] {
  if (asked === 'Background' || asked === 'Foreground' || asked === 'Orphan') return asked;
  if (asked !== undefined && asked !== null && asked !== '')
    throw badRequest(`propagationPolicy: ${JSON.stringify(asked)} is none of Background, Foreground, Orphan`);
  return body.orphanDependents === true ? 'Orphan' : undefined;
}

function preconditionsOf(value: unknown): Options['preconditions'] {
  if (!isObject(value)) return undefined;
  const { uid, resourceVersion } = value;
  return {
    ...(typeof uid === 'string' ? { uid } : {}),
    ...(typeof resourceVersion === 'string' ? { resourceVersion } : {}),
  };
}
