import { isObject, objectOr, stringOr } from '../../json.ts';
import { keyOf } from '../objects.ts';
import { badRequest, conflict, methodNotAllowed, notFound, type Status } from '../status.ts';
import type { Store } from '../storage/store.ts';
import type { Exchange } from './exchange.ts';
import type { Route } from './route.ts';

/** POST of a pod's /binding: a scheduler puts it on a node, once. */
export async function bind(
  exchange: Exchange,
  { store }: { store: Store },
  { kind, namespace, name = '' }: Route,
): Promise<void> {
  if (exchange.method !== 'POST') throw methodNotAllowed();
  const body = await exchange.body();
  const node = isObject(body) ? stringOr(objectOr(body.target).name, '') : '';
  if (node === '') throw badRequest('a Binding must name the node in target.name');
  const stored = store.get(kind.id, keyOf(namespace, name));
  if (stored === undefined) throw notFound(kind, name);
  const { object } = stored;
  const spec = objectOr(object.spec);
  if (object.metadata.deletionTimestamp !== undefined)
    throw conflict(kind, name, `pod ${name} is being deleted, cannot be assigned to a host`);
  if (stringOr(spec.nodeName, '') !== '')
    throw conflict(kind, name, `pod ${name} is already assigned to node ${JSON.stringify(spec.nodeName)}`);
  store.put(kind.id, { ...object, spec: { ...spec, nodeName: node } });
  const done: Status = { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', code: 201 };
  exchange.sendStatus(done);
}
