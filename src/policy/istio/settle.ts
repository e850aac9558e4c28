import type { Authentication, AuthenticationMode, PeerMatch, Policy } from '../rule.ts';
import { rulesOf } from './peer-authentication.ts';

type Weighed = Policy & { readonly authentication: Authentication };
type Mode = Exclude<AuthenticationMode, 'inherit'>;

/**
 * Weighs PeerAuthentications against each other, as Istio does: for a pod the oldest one that selects it decides, else
 * the oldest of its namespace, else the oldest of the mesh; what one leaves unset is as the next wider scope has it. Among
 * equally old ones, the first by name is the oldest.
 *
 * One that is audited stands alone: what decides nothing overrules nobody.
 *
 * To be called over all policies of a cluster, whenever a view of it is made. Other policies stay the objects that they
 * are, and so do settled ones that mean what they meant before.
 */
export function settle(policies: readonly Policy[]): readonly Policy[] {
  const weighed = policies.filter(isWeighed).sort(byAge);
  if (weighed.length === 0) return policies;
  const mesh = weighed.find(({ authentication }) => authentication.scope === 'mesh');
  const meshMode = modeIn(mesh, 'optional');
  const settled = new Map<Policy, Policy>();

  const overruled: PeerMatch[] = [];
  for (const [namespace, members] of groupByNamespace(weighed)) {
    const whole = members.find(({ authentication }) => authentication.scope === 'namespace');
    const mode = modeIn(whole, meshMode);
    const older: PeerMatch[] = [];
    for (const policy of members.filter(({ authentication }) => authentication.scope === 'workload')) {
      settled.set(policy, decidingFor(policy, older, mode));
      older.push(policy.subject);
    }
    if (whole !== undefined) settled.set(whole, decidingFor(whole, older, meshMode));
    const inNamespace: PeerMatch = { kind: 'namespace', match: { op: 'exact', text: namespace } };
    overruled.push(...(whole === undefined ? older : [inNamespace]));
  }
  if (mesh !== undefined) settled.set(mesh, decidingFor(mesh, overruled, 'optional'));
  return policies.map((policy) => {
    if (!isWeighed(policy)) return policy;
    return asBefore(policy, settled.get(policy) ?? { ...policy, rules: [] });
  });
}

/** @param others Whom others decide about. */
function decidingFor(policy: Weighed, others: readonly PeerMatch[], inherited: Mode): Policy {
  const rules = rulesOf(policy, policy.authentication, inherited);
  if (others.length === 0) return { ...policy, rules };
  const subject: PeerMatch = { kind: 'all', of: [policy.subject, { kind: 'not', peer: { kind: 'some', of: others } }] };
  return { ...policy, subject, rules };
}

function modeIn(policy: Weighed | undefined, inherited: Mode): Mode {
  const mode = policy?.authentication.mode ?? 'inherit';
  return mode === 'inherit' ? inherited : mode;
}

function isWeighed(policy: Policy): policy is Weighed {
  return policy.authentication !== undefined && policy.options?.mode !== 'audit';
}

/** RFC 3339 with equal precision sorts as text; without a time it is not there yet, and younger than all. */
function byAge(a: Weighed, b: Weighed): number {
  const [first, second] = [ageKey(a), ageKey(b)];
  return first < second ? -1 : first > second ? 1 : 0;
}

function ageKey({ authentication, namespace, name }: Weighed): string {
  return `${authentication.created ?? '~'} ${namespace}/${name}`;
}

function groupByNamespace(policies: readonly Weighed[]): Map<string, Weighed[]> {
  const groups = new Map<string, Weighed[]>();
  for (const policy of policies) {
    if (policy.authentication.scope === 'mesh') continue;
    const group = groups.get(policy.namespace);
    if (group === undefined) groups.set(policy.namespace, [policy]);
    else group.push(policy);
  }
  return groups;
}

/** What a policy was last settled to: compiling again is cheap where objects stay the same. */
const last = new WeakMap<Policy, Policy>();

function asBefore(policy: Policy, now: Policy): Policy {
  const before = last.get(policy);
  if (before !== undefined && JSON.stringify(before) === JSON.stringify(now)) return before;
  last.set(policy, now);
  return now;
}
