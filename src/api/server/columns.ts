import { type AnyObject, isList, objectOr, stringOr } from '../json.ts';
import { policyResources } from '../kinds.ts';
import {
  age,
  ageColumn,
  at,
  type Column,
  column,
  listAt,
  nameColumn,
  numberAt,
  orNone,
  textAt,
  wide,
} from './column.ts';

/** A label selector in kubectl's words: `app=web,tier in (a,b)`. */
function selectorText(selector: unknown): string {
  const labels = objectOr(objectOr(selector).matchLabels);
  const parts = Object.entries(labels).map(([key, value]) => `${key}=${String(value)}`);
  for (const { key, operator, values } of listAt(objectOr(selector), 'matchExpressions')) {
    const choices = isList(values) ? values.join(',') : '';
    const forms: Record<string, string> = {
      In: `${String(key)} in (${choices})`,
      NotIn: `${String(key)} notin (${choices})`,
      Exists: String(key),
      DoesNotExist: `!${String(key)}`,
    };
    parts.push(forms[String(operator)] ?? String(operator));
  }
  return orNone(parts.join(','));
}

function mapText(map: unknown): string {
  return orNone(
    Object.entries(objectOr(map))
      .map(([key, value]) => `${key}=${String(value)}`)
      .join(','),
  );
}

function podStatus(pod: AnyObject): string {
  const reasons = listAt(pod, 'status', 'containerStatuses').map(
    ({ state }) => textAt(objectOr(state), 'waiting', 'reason') || textAt(objectOr(state), 'terminated', 'reason'),
  );
  if (pod.metadata.deletionTimestamp !== undefined) return 'Terminating';
  const phase = textAt(pod, 'status', 'reason') || textAt(pod, 'status', 'phase');
  return (
    reasons.find((reason) => reason !== '' && (phase !== 'Succeeded' || reason !== 'Completed')) ??
    (phase === 'Succeeded' ? 'Completed' : phase)
  );
}

const podColumns = [
  nameColumn,
  column('Ready', (pod) => {
    const statuses = listAt(pod, 'status', 'containerStatuses');
    return `${statuses.filter(({ ready }) => ready === true).length}/${listAt(pod, 'spec', 'containers').length}`;
  }),
  column('Status', podStatus),
  column('Restarts', (pod) =>
    String(
      listAt(pod, 'status', 'containerStatuses').reduce((sum, { restartCount }) => sum + Number(restartCount ?? 0), 0),
    ),
  ),
  ageColumn,
  column(
    'IP',
    (pod) =>
      orNone(
        listAt(pod, 'status', 'podIPs')
          .map(({ ip }) => stringOr(ip, ''))
          .join(',') || textAt(pod, 'status', 'podIP'),
      ),
    wide,
  ),
  column('Node', (pod) => orNone(textAt(pod, 'spec', 'nodeName')), wide),
  column('Nominated Node', (pod) => orNone(textAt(pod, 'status', 'nominatedNodeName')), wide),
  column('Readiness Gates', () => '<none>', wide),
];

const address = (node: AnyObject, type: string) =>
  orNone(
    listAt(node, 'status', 'addresses')
      .filter((entry) => entry.type === type)
      .map((entry) => stringOr(entry.address, ''))
      .join(','),
  );

const nodeColumns = [
  nameColumn,
  column('Status', (node) => {
    const ready = listAt(node, 'status', 'conditions').find(({ type }) => type === 'Ready');
    const state = ready === undefined ? 'Unknown' : ready.status === 'True' ? 'Ready' : 'NotReady';
    return at(node, 'spec', 'unschedulable') === true ? `${state},SchedulingDisabled` : state;
  }),
  column('Roles', ({ metadata }) => {
    const prefix = 'node-role.kubernetes.io/';
    const roles = Object.keys(metadata.labels ?? {}).filter((key) => key.startsWith(prefix));
    return orNone(
      roles
        .map((key) => key.slice(prefix.length))
        .sort()
        .join(','),
    );
  }),
  ageColumn,
  column('Version', (node) => textAt(node, 'status', 'nodeInfo', 'kubeletVersion')),
  column('Internal-IP', (node) => address(node, 'InternalIP'), wide),
  column('External-IP', (node) => address(node, 'ExternalIP'), wide),
  column('OS-Image', (node) => textAt(node, 'status', 'nodeInfo', 'osImage') || '<unknown>', wide),
  column('Kernel-Version', (node) => textAt(node, 'status', 'nodeInfo', 'kernelVersion') || '<unknown>', wide),
  column(
    'Container-Runtime',
    (node) => textAt(node, 'status', 'nodeInfo', 'containerRuntimeVersion') || '<unknown>',
    wide,
  ),
];

const serviceColumns = [
  nameColumn,
  column('Type', (service) => textAt(service, 'spec', 'type')),
  column('Cluster-IP', (service) => {
    const all = at(service, 'spec', 'clusterIPs');
    return orNone(isList(all) ? all.join(',') : textAt(service, 'spec', 'clusterIP'));
  }),
  column('External-IP', (service) => {
    if (textAt(service, 'spec', 'type') === 'ExternalName') return textAt(service, 'spec', 'externalName');
    const given = listAt(service, 'status', 'loadBalancer', 'ingress').map(({ ip, hostname }) =>
      stringOr(ip, stringOr(hostname, '')),
    );
    const fixed = at(service, 'spec', 'externalIPs');
    const all = [...given, ...(isList(fixed) ? fixed.map(String) : [])];
    if (all.length === 0 && textAt(service, 'spec', 'type') === 'LoadBalancer') return '<pending>';
    return orNone(all.join(','));
  }),
  column('Port(s)', (service) =>
    orNone(
      listAt(service, 'spec', 'ports')
        .map(
          ({ port, nodePort, protocol }) =>
            `${String(port)}${nodePort ? `:${String(nodePort)}` : ''}/${String(protocol)}`,
        )
        .join(','),
    ),
  ),
  ageColumn,
  column('Selector', (service) => mapText(at(service, 'spec', 'selector')), wide),
];

const deploymentColumns = [
  nameColumn,
  column('Ready', (d) => `${numberAt(d, 'status', 'readyReplicas')}/${numberAt(d, 'spec', 'replicas')}`),
  column('Up-to-date', (d) => numberAt(d, 'status', 'updatedReplicas'), { type: 'integer' }),
  column('Available', (d) => numberAt(d, 'status', 'availableReplicas'), { type: 'integer' }),
  ageColumn,
  column(
    'Containers',
    (d) =>
      listAt(d, 'spec', 'template', 'spec', 'containers')
        .map(({ name }) => String(name))
        .join(','),
    wide,
  ),
  column(
    'Images',
    (d) =>
      listAt(d, 'spec', 'template', 'spec', 'containers')
        .map(({ image }) => String(image))
        .join(','),
    wide,
  ),
  column('Selector', (d) => selectorText(at(d, 'spec', 'selector')), wide),
];

function endpointsText(endpoints: AnyObject): string {
  const all = listAt(endpoints, 'subsets').flatMap((subset) =>
    listAt(subset, 'addresses').flatMap(({ ip }) => {
      const host = String(ip).includes(':') ? `[${String(ip)}]` : String(ip);
      const ports = listAt(subset, 'ports');
      return ports.length === 0 ? [host] : ports.map(({ port }) => `${host}:${String(port)}`);
    }),
  );
  return all.length > 3 ? `${all.slice(0, 3).join(',')} + ${all.length - 3} more...` : orNone(all.join(','));
}

const sliceColumns = [
  nameColumn,
  column('AddressType', (slice) => stringOr(slice.addressType, '')),
  column(
    'Ports',
    (slice) =>
      listAt(slice, 'ports')
        .map(({ port }) => String(port ?? '*'))
        .join(',') || '<unset>',
  ),
  column('Endpoints', (slice) => {
    const all = listAt(slice, 'endpoints').flatMap(({ addresses }) => (isList(addresses) ? addresses.map(String) : []));
    return all.length > 3 ? `${all.slice(0, 3).join(',')} + ${all.length - 3} more...` : all.join(',') || '<unset>';
  }),
  ageColumn,
];

const eventColumns = [
  column('Last Seen', (event, now) => age(event.lastTimestamp ?? event.eventTime ?? event.firstTimestamp, now)),
  column('Type', (event) => stringOr(event.type, '')),
  column('Reason', (event) => stringOr(event.reason, '')),
  column(
    'Object',
    (event) => `${textAt(event, 'involvedObject', 'kind').toLowerCase()}/${textAt(event, 'involvedObject', 'name')}`,
  ),
  column('Subobject', (event) => textAt(event, 'involvedObject', 'fieldPath'), wide),
  column('Source', (event) => textAt(event, 'source', 'component') || stringOr(event.reportingComponent, ''), wide),
  column('Message', (event) => stringOr(event.message, '').trim()),
  column('First Seen', (event, now) => age(event.firstTimestamp ?? event.eventTime, now), wide),
  column('Count', (event) => Number(event.count ?? 1), { wide: true, type: 'integer' }),
  column('Name', ({ metadata }) => metadata.name ?? '', wide),
];

const size = (object: AnyObject, ...fields: string[]) =>
  fields.reduce((sum, field) => sum + Object.keys(objectOr(object[field])).length, 0);

const builtin: Readonly<Record<string, readonly Column[]>> = {
  '/namespaces': [nameColumn, column('Status', (ns) => textAt(ns, 'status', 'phase')), ageColumn],
  '/nodes': nodeColumns,
  '/pods': podColumns,
  '/services': serviceColumns,
  '/endpoints': [nameColumn, column('Endpoints', endpointsText), ageColumn],
  '/events': eventColumns,
  '/serviceaccounts': [
    nameColumn,
    column('Secrets', (sa) => listAt(sa, 'secrets').length, { type: 'string' }),
    ageColumn,
  ],
  '/configmaps': [nameColumn, column('Data', (cm) => size(cm, 'data', 'binaryData')), ageColumn],
  '/secrets': [
    nameColumn,
    column('Type', (secret) => stringOr(secret.type, '')),
    column('Data', (secret) => size(secret, 'data')),
    ageColumn,
  ],
  'discovery.k8s.io/endpointslices': sliceColumns,
  'apps/deployments': deploymentColumns,
  'networking.k8s.io/networkpolicies': [
    nameColumn,
    column('Pod-Selector', (policy) => selectorText(at(policy, 'spec', 'podSelector'))),
    ageColumn,
    column(
      'Policy Types',
      (policy) => {
        const types = at(policy, 'spec', 'policyTypes');
        return isList(types) ? types.join(',') : '';
      },
      wide,
    ),
  ],
  'coordination.k8s.io/leases': [
    nameColumn,
    column('Holder', (lease) => textAt(lease, 'spec', 'holderIdentity')),
    ageColumn,
  ],
  'apiextensions.k8s.io/customresourcedefinitions': [
    nameColumn,
    column('Created At', ({ metadata }) => metadata.creationTimestamp ?? ''),
  ],
};

/** What a policy's status says of how far nodes enforce it; a policy of which nothing is to be said is enforced. */
const enforced = column('Enforced', (policy) => {
  const untrue = listAt(policy, 'status', 'conditions').filter(({ status }) => status === 'False');
  return untrue.length === 0 ? 'True' : 'False';
});
const policyIds: ReadonlySet<string> = new Set(policyResources.map(({ group, plural }) => `${group}/${plural}`));
/** The columns that kinds of policies have beside those, as their own definitions name them. */
const ofPolicies: Readonly<Record<string, readonly Column[]>> = {
  'policy.networking.k8s.io/clusternetworkpolicies': [
    column('Tier', (policy) => textAt(policy, 'spec', 'tier')),
    column('Priority', (policy) => numberAt(policy, 'spec', 'priority'), { type: 'integer' }),
  ],
  'security.istio.io/authorizationpolicies': [column('Action', (policy) => textAt(policy, 'spec', 'action'))],
  'security.istio.io/peerauthentications': [column('Mode', (policy) => textAt(policy, 'spec', 'mtls', 'mode'))],
};

/** @param id `group/plural` of a built-in kind. */
export function builtinColumns(id: string): readonly Column[] {
  return (
    builtin[id] ??
    (policyIds.has(id) ? [nameColumn, ...(ofPolicies[id] ?? []), enforced, ageColumn] : [nameColumn, ageColumn])
  );
}
