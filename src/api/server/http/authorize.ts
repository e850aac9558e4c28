import { type IpAddress, tryParseIp } from '../../../model/address.ts';
import { prefixContains } from '../../../model/prefix.ts';
import { secretsNamespace } from '../../../policy/tls.ts';
import { type AnyObject, isList, isObject, objectOr, stringOr } from '../../json.ts';
import { readPrefix } from '../rules/network-policy.ts';
import type { World } from '../rules/rules.ts';
import { forbidden, qualifiedPlural, StatusError } from '../status.ts';
import type { User } from './identify.ts';
import type { Route, Verb } from './route.ts';

const admins = 'system:masters';
const nodes = 'system:nodes';
/** Whoever needs to know the cluster, and has no business in it: a name server. */
const readers = 'myelin:readers';
const nodePrefix = 'system:node:';
const leaseNamespace = 'kube-node-lease';

/** Kinds whose contents are nobody's business but their owner's. */
const secret = ['/secrets', '/configmaps'];

/** A check of the object itself, once it is known. */
export type Restriction = (next: AnyObject | undefined, old: AnyObject | undefined) => void;

/**
 * Decides whether `user` may do this. system:masters may do everything. A node (group system:nodes, named
 * system:node:<name>) reads what networking needs (of Secrets, those that policies may name), and writes what it alone can know: its own status, that of the pods
 * that run on it, its lease, events. A reader (group myelin:readers) reads what a node does, and writes nothing.
 * @returns What else must hold of the object, or undefined where nothing more is to be checked.
 * @throws {StatusError} `Forbidden`
 */
export function authorize(user: User, verb: Verb, route: Route, world: World): Restriction | undefined {
  if (user.groups.includes(admins)) return undefined;
  const node = nodeName(user);
  if (verb === 'get' || verb === 'list' || verb === 'watch') {
    if ((node !== undefined || user.groups.includes(readers)) && !secret.includes(route.kind.id)) return undefined;
    if (node !== undefined && route.kind.id === '/secrets' && route.namespace === secretsNamespace) return undefined;
  } else if (node !== undefined) {
    const restriction = nodeMayWrite(node, verb, route, world);
    if (restriction !== undefined) return restriction;
  }
  throw refusal(user, verb, route);
}

/** @returns The name of the node that `user` is, or undefined. */
export function nodeName(user: User): string | undefined {
  return user.groups.includes(nodes) && user.name.startsWith(nodePrefix)
    ? user.name.slice(nodePrefix.length)
    : undefined;
}

const nothingMore: Restriction = () => {};

function nodeMayWrite(node: string, verb: Verb, route: Route, world: World): Restriction | undefined {
  const { kind, namespace, name, subresource } = route;
  const changes = verb === 'update' || verb === 'patch';
  switch (kind.id) {
    case '/nodes':
      return changes && subresource === 'status' && name === node ? nothingMore : undefined;
    case '/pods':
      if (changes && subresource === 'status')
        return (next, old) => {
          requireOwnPod(node, route, old);
          if (next !== undefined) requireOwnAddresses(node, route, next, world);
        };
      return verb === 'delete' && subresource === '' ? (_next, old) => requireOwnPod(node, route, old) : undefined;
    case 'coordination.k8s.io/leases':
      if (namespace !== leaseNamespace || subresource !== '') return undefined;
      if (changes) return name === node ? nothingMore : undefined;
      return verb === 'create' ? (next) => requireOwnLease(node, route, next) : undefined;
    case '/events':
      return (changes || verb === 'create') && subresource === '' ? nothingMore : undefined;
    default:
      return undefined;
  }
}

function requireOwnPod(node: string, { kind, name = '' }: Route, pod: AnyObject | undefined): void {
  if (pod === undefined || objectOr(pod.spec).nodeName === node) return;
  throw forbidden(
    kind,
    name,
    `node ${JSON.stringify(node)} can only write the status of, and delete, pods with spec.nodeName set to itself`,
  );
}

function requireOwnLease(node: string, { kind }: Route, lease: AnyObject | undefined): void {
  if (lease?.metadata.name === node) return;
  throw forbidden(
    kind,
    lease?.metadata.name ?? '',
    `node ${JSON.stringify(node)} can only have the lease of its own name`,
  );
}

/**
 * A pod's address decides who may speak as it, so a node gives its pods addresses out of its own range only, and its own
 * addresses to pods that share its network. Otherwise a node could claim another's.
 */
function requireOwnAddresses(node: string, { kind, name = '' }: Route, pod: AnyObject, world: World): void {
  const claimed = podAddresses(pod);
  if (claimed.length === 0) return;
  const self = world.get('/nodes', node);
  const shared = objectOr(pod.spec).hostNetwork === true;
  const own = shared ? nodeAddresses(self) : [];
  const ranges = objectOr(self?.spec).podCIDRs;
  const prefixes = (isList(ranges) ? ranges : []).map((range) => readPrefix(String(range)));
  for (const text of claimed) {
    const ip = tryParseIp(text);
    const fits = shared
      ? ip !== undefined && own.includes(ip)
      : ip !== undefined && prefixes.some((prefix) => prefix !== undefined && prefixContains(prefix, ip));
    if (!fits)
      throw forbidden(
        kind,
        name,
        `${text} is not an address that node ${JSON.stringify(node)} may give to a pod (its spec.podCIDRs: ${JSON.stringify(ranges ?? [])})`,
      );
  }
}

function podAddresses(pod: AnyObject): string[] {
  const { podIP, podIPs } = objectOr(pod.status);
  const all = new Set((isList(podIPs) ? podIPs : []).map((entry) => stringOr(objectOr(entry).ip, '')));
  all.add(stringOr(podIP, ''));
  all.delete('');
  return [...all];
}

function nodeAddresses(node: AnyObject | undefined): IpAddress[] {
  const { addresses } = objectOr(node?.status);
  return (isList(addresses) ? addresses : [])
    .filter(isObject)
    .flatMap(({ address }) => tryParseIp(stringOr(address, '')) ?? []);
}

function refusal(user: User, verb: Verb, { kind, namespace, name, subresource }: Route): StatusError {
  const plural = subresource === '' ? kind.plural : `${kind.plural}/${subresource}`;
  const scope = namespace === undefined ? 'at the cluster scope' : `in the namespace ${JSON.stringify(namespace)}`;
  const which = name === undefined ? '' : ` ${JSON.stringify(name)}`;
  return new StatusError(
    403,
    'Forbidden',
    `${qualifiedPlural(kind)}${which} is forbidden: User ${JSON.stringify(user.name)} cannot ${verb} resource ${JSON.stringify(plural)} in API group ${JSON.stringify(kind.group)} ${scope}`,
    { ...(name === undefined ? {} : { name }), ...(kind.group === '' ? {} : { group: kind.group }), kind: kind.plural },
  );
}
