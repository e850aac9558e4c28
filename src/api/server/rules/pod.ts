import { isDeepStrictEqual } from 'node:util';
import { tryParseIp } from '../../../model/address.ts';
import type { FieldIssue } from '../../issue.ts';
import { withoutNulls } from '../../json.ts';
import { kinds, type Pod } from '../../kinds.ts';
import { forbiddenField, invalidValue } from '../../validate.ts';
import { forbidden } from '../status.ts';
import { checkPodSpec } from './pod-checks.ts';
import { qosClass, setPodDefaults } from './pod-defaults.ts';
import { rulesFor, type World } from './rules.ts';

export const podRules = rulesFor(kinds.Pod, {
  prepareCreate: (pod) => {
    pod.status = { phase: 'Pending', qosClass: qosClass(pod.spec) };
  },
  prepareUpdate: (next, old) => {
    next.spec.serviceAccountName ||= old.spec.serviceAccountName;
    next.spec.nodeName ||= old.spec.nodeName;
  },
  defaults: (pod) => {
    // An identity is what a pod has from its first moment; one without a name has its namespace's default.
    pod.spec.serviceAccountName ||= pod.spec.serviceAccount || 'default';
    pod.spec.enableServiceLinks ??= true;
    setPodDefaults(pod.spec);
  },
  validate: (pod) => [...checkPodSpec('spec', pod.spec), ...checkStatus(pod)],
  validateUpdate: (next, old) => {
    if (isDeepStrictEqual(fixedPart(next), fixedPart(old))) return [];
    return [
      forbiddenField(
        'spec',
        'pod updates may not change fields other than `spec.containers[*].image`, `spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.terminationGracePeriodSeconds`, `spec.tolerations` (only additions to existing tolerations)',
      ),
    ];
  },
  admit: (next, old, world) => {
    if (old === undefined) requireServiceAccount(next, world);
  },
});

/** The spec without what an update may change. */
function fixedPart(pod: Pod): unknown {
  const { activeDeadlineSeconds: _a, terminationGracePeriodSeconds: _b, tolerations: _c, ...spec } = pod.spec;
  const bare = (list: Pod['spec']['containers'] | undefined) =>
    list?.map(({ image: _image, ...container }) => container);
  return withoutNulls({
    ...spec,
    containers: bare(spec.containers),
    initContainers: bare(spec.initContainers),
    schedulingGates: undefined,
    ephemeralContainers: undefined,
  });
}

function checkStatus({ status = {} }: Pod): FieldIssue[] {
  const issues: FieldIssue[] = [];
  const families = new Set<boolean>();
  for (const [i, { ip = '' }] of (status.podIPs ?? []).entries()) {
    if (tryParseIp(ip) === undefined)
      issues.push(invalidValue(`status.podIPs[${i}].ip`, ip, 'must be a valid IP address'));
    families.add(ip.includes(':'));
  }
  if ((status.podIPs ?? []).length > families.size)
    issues.push(invalidValue('status.podIPs', status.podIPs, 'may specify no more than one IP for each IP family'));
  if (status.podIP && (status.podIPs ?? []).length > 0 && status.podIPs?.[0]?.ip !== status.podIP)
    issues.push(invalidValue('status.podIPs[0].ip', status.podIPs?.[0]?.ip, 'must be equal to `podIP`'));
  return issues;
}

function requireServiceAccount(pod: Pod, world: World): void {
  const { namespace = '', name = '' } = pod.metadata;
  const account = `${namespace}/${pod.spec.serviceAccountName ?? 'default'}`;
  if (world.get('/serviceaccounts', account) === undefined)
    throw forbidden(
      kinds.Pod,
      name,
      `error looking up service account ${account}: serviceaccount ${JSON.stringify(pod.spec.serviceAccountName)} not found`,
    );
}
