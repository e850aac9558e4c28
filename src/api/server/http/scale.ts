import { type AnyObject, isObject, objectOr } from '../../json.ts';
import { keyOf, type Objects } from '../objects.ts';
import { mergePatch } from '../patch/merge.ts';
import { badRequest, methodNotAllowed, notFound } from '../status.ts';
import type { Store } from '../storage/store.ts';
import type { Restriction } from './authorize.ts';
import type { Exchange } from './exchange.ts';
import type { Route } from './route.ts';
import { isDryRun } from './write.ts';

/** The /scale subresource of Deployments, which `kubectl scale` reads and writes. */
export async function scale(
  exchange: Exchange,
  { store, objects }: { store: Store; objects: Objects },
  { kind, namespace, name = '' }: Route,
  restriction: Restriction | undefined,
): Promise<void> {
  const stored = store.get(kind.id, keyOf(namespace, name));
  if (stored === undefined) throw notFound(kind, name);
  if (exchange.method === 'GET') {
    exchange.send(200, scaleOf(stored.object));
    return;
  }
  if (exchange.method !== 'PUT' && exchange.method !== 'PATCH') throw methodNotAllowed();
  const body = await exchange.body();
  const wanted = exchange.method === 'PUT' ? body : mergePatch(scaleOf(stored.object), body);
  if (!isObject(wanted)) throw badRequest('expected a Scale as a JSON object');
  const { replicas } = objectOr(wanted.spec);
  const { resourceVersion } = objectOr(wanted.metadata);
  const change = (old: AnyObject) => ({
    ...old,
    metadata: { ...old.metadata, ...(typeof resourceVersion === 'string' ? { resourceVersion } : {}) },
    spec: { ...objectOr(old.spec), replicas: replicas ?? 0 },
  });
  const next = objects.update(change, {
    ...{ kind, namespace, name, subresource: '', validation: 'Strict', dryRun: isDryRun(exchange), warn: () => {} },
    ...(restriction === undefined ? {} : { restrict: restriction }),
  });
  exchange.send(200, scaleOf(next));
}

function scaleOf({ metadata, spec, status }: AnyObject) {
  const { name, namespace, uid, resourceVersion, creationTimestamp } = metadata;
  const { replicas = 1, selector } = objectOr(spec);
  const labels = Object.entries(objectOr(objectOr(selector).matchLabels));
  return {
    apiVersion: 'autoscaling/v1',
    kind: 'Scale',
    metadata: { name, namespace, uid, resourceVersion, creationTimestamp },
    spec: { replicas },
    status: {
      replicas: objectOr(status).replicas ?? 0,
      selector: labels.map(([key, value]) => `${key}=${String(value)}`).join(','),
    },
  };
}
