import { z } from 'zod';
import type { Labels } from '../../model/labels.ts';
import { formatRule } from '../../model/verdict.ts';
import { bareKind, parseCiliumRules } from '../cilium/parse.ts';
import { noServices } from '../cilium/services.ts';
import { fieldOf } from '../issues.ts';
import { type PoliciesResult, policyKindOf, policyKinds } from '../kinds.ts';
import type { Policy, Rule } from '../rule.ts';
import { type CheckCluster, lintPolicy } from './lint.ts';
import { findShadows } from './shadow.ts';
import { type CheckPod, readNamespace, readWorkload } from './workloads.ts';

/** One object of the manifests that are checked. */
export interface CheckInput {
  readonly object: unknown;
  /** What a list of rules that is no object is called. */
  readonly name: string;
}

export type FindingCode = 'schema' | 'limit' | 'no-pods' | 'no-peers' | 'no-port' | 'never' | 'repeated';

export interface Finding {
  /** Of the inputs, by place. */
  readonly input: number;
  readonly severity: 'error' | 'warning';
  readonly code: FindingCode;
  /** `NetworkPolicy shop/cart` */
  readonly policy: string;
  readonly path: readonly (string | number)[];
  readonly field: string;
  readonly message: string;
}

/** A cluster that the manifests are about to be put in. */
export interface ExistingCluster {
  readonly pods: readonly CheckPod[];
  readonly namespaces: ReadonlyMap<string, Labels>;
  readonly policies: readonly Policy[];
}

export interface CheckReport {
  readonly findings: readonly Finding[];
  /** How many policies were read, and how many sorts of pods they were held against. */
  readonly policies: number;
  readonly pods: number;
}

/**
 * Checks policies of all kinds: what is not understood, what is not enforced as it is written, and what comes to nothing.
 * @param inputs Policies, and beside them workloads and namespaces; other objects are passed over.
 * @param existing What there is already, where a cluster is asked; without it, only what the inputs have.
 */
export function checkPolicies(
  inputs: readonly CheckInput[],
  { defaultNamespace = 'default', existing }: { defaultNamespace?: string; existing?: ExistingCluster } = {},
): CheckReport {
  const findings: Finding[] = [];
  const own: { input: number; policy: Policy }[] = [];
  for (const [input, { object, name }] of inputs.entries()) {
    const result = parseAny(object, name, defaultNamespace);
    if (result === undefined) continue;
    const policy = nameOf(object, name, defaultNamespace);
    if (result.ok) {
      for (const issue of inertRules(object))
        findings.push({ input, severity: 'warning', code: 'never', policy, ...issue });
      for (const one of result.policies) {
        own.push({ input, policy: one });
        for (const { field, reason } of one.limits ?? [])
          findings.push({
            input,
            severity: 'warning',
            code: 'limit',
            policy,
            path: pathOf(field),
            field,
            message: reason,
          });
      }
    } else
      for (const issue of result.issues) findings.push({ input, severity: 'error', code: 'schema', policy, ...issue });
  }
  const cluster = clusterOf(inputs, defaultNamespace, existing);
  for (const { input, policy } of own)
    for (const { code, rule, path, message } of lintPolicy(policy, cluster)) {
      const place = path === undefined ? placeOf(policy, rule) : { path, field: fieldOf(path) };
      findings.push({ input, severity: 'warning', code, policy: titleOf(policy), ...place, message });
    }
  findings.push(...shadows(own, existing?.policies ?? []));
  findings.sort((a, b) => a.input - b.input);
  return { findings, policies: own.length, pods: cluster.pods.length };
}

/** @returns Undefined for what is no policy. */
function parseAny(object: unknown, name: string, defaultNamespace: string): PoliciesResult | undefined {
  if (Array.isArray(object)) return parseCiliumRules(object, name);
  if (typeof object !== 'object' || object === null) return undefined;
  const known = policyKindOf(object);
  if (known !== undefined) return known.parse(object, { defaultNamespace, services: () => noServices });
  const namesake = policyKinds.find(({ kind }) => 'kind' in object && object.kind === kind);
  if (namesake === undefined) return undefined;
  const message = `expected ${namesake.group}/${namesake.version}`;
  return { ok: false, issues: [{ path: ['apiVersion'], field: 'apiVersion', message }] };
}

/** Rules of a NetworkPolicy in a direction that its policyTypes leave out, which its rule form no longer has. */
function inertRules(object: unknown): Pick<Finding, 'path' | 'field' | 'message'>[] {
  const read = typedPolicy.safeParse(object);
  if (!read.success) return [];
  const { policyTypes, ...rules } = read.data.spec;
  return (['ingress', 'egress'] as const).flatMap((direction) => {
    const type = direction === 'ingress' ? 'Ingress' : 'Egress';
    if ((rules[direction] ?? []).length === 0 || policyTypes.includes(type)) return [];
    const path = ['spec', direction];
    return [{ path, field: fieldOf(path), message: `can never decide: policyTypes does not name ${type}` }];
  });
}

const list = z.array(z.unknown()).nullish();
const typedPolicy = z.looseObject({
  kind: z.literal('NetworkPolicy'),
  spec: z.looseObject({ policyTypes: z.array(z.string()).min(1), ingress: list, egress: list }),
});

function shadows(own: readonly { input: number; policy: Policy }[], others: readonly Policy[]): Finding[] {
  const replaced = new Set(own.map(({ policy }) => titleOf(policy)));
  const all = [...own.map(({ policy }) => policy), ...others.filter((other) => !replaced.has(titleOf(other)))];
  const inputs = new Map(own.map(({ input, policy }) => [policy, input]));
  const told = new Set<string>();
  return findShadows(all, new Set(inputs.keys())).flatMap(({ rule, sort, message }): Finding[] => {
    const input = inputs.get(rule.policy);
    const key = `${formatRule(rule.rule.ref)} ${message}`;
    if (input === undefined || told.has(key)) return [];
    told.add(key);
    const code = sort === 'never' ? 'never' : 'repeated';
    const place = placeOf(rule.policy, rule.rule);
    return [{ input, severity: 'warning', code, policy: titleOf(rule.policy), ...place, message }];
  });
}

function clusterOf(
  inputs: readonly CheckInput[],
  defaultNamespace: string,
  existing: ExistingCluster | undefined,
): CheckCluster {
  const added = inputs.flatMap(({ object }) => readWorkload(object, defaultNamespace) ?? []);
  const names = inputs.flatMap(({ object }) => readNamespace(object) ?? []);
  const pods = [...(existing?.pods ?? []), ...added];
  const named = new Map([
    // Without its object, a namespace has at least the label that every one has.
    ...pods.map(({ namespace }): [string, Labels] => [namespace, { 'kubernetes.io/metadata.name': namespace }]),
    ...(existing?.namespaces ?? []),
    ...names.map(({ name, labels }): [string, Labels] => [name, labels]),
  ]);
  return { pods, namespaces: named, complete: existing !== undefined };
}

function titleOf({ kind, namespace, name }: Pick<Policy, 'kind' | 'namespace' | 'name'>): string {
  return `${kind} ${namespace === '' ? name : `${namespace}/${name}`}`;
}

function nameOf(object: unknown, fallback: string, defaultNamespace: string): string {
  if (typeof object !== 'object' || object === null || Array.isArray(object)) return `${bareKind} ${fallback}`;
  const kind = 'kind' in object ? String(object.kind) : '';
  const metadata = 'metadata' in object && typeof object.metadata === 'object' ? object.metadata : null;
  const name = metadata !== null && 'name' in metadata ? String(metadata.name) : fallback;
  const given = metadata !== null && 'namespace' in metadata ? String(metadata.namespace) : defaultNamespace;
  const namespaced = policyKinds.find((known) => known.kind === kind)?.namespaced ?? true;
  return titleOf({ kind, namespace: namespaced ? given : '', name });
}

/** Where a rule, or a policy's subject, stands in its manifest. */
function placeOf(policy: Policy, rule: Rule | undefined): Pick<Finding, 'path' | 'field'> {
  const path = [...basePath(policy), ...(rule === undefined ? subjectPath(policy.kind) : rulePath(policy.kind, rule))];
  return { path, field: fieldOf(path) };
}

function basePath({ kind, name }: Policy): (string | number)[] {
  const [, index] = /\[(\d+)\]$/.exec(name) ?? [];
  if (kind === bareKind) return [Number(index)];
  return kind.startsWith('Cilium') && index !== undefined ? ['specs', Number(index)] : ['spec'];
}

function subjectPath(kind: string): string[] {
  if (kind.startsWith('Cilium')) return ['endpointSelector'];
  if (kind === 'ClusterNetworkPolicy') return ['subject'];
  return kind === 'NetworkPolicy' ? ['podSelector'] : ['selector'];
}

function rulePath(kind: string, { ref }: Rule): (string | number)[] {
  if (kind === 'PeerAuthentication') return ['mtls'];
  if (ref.index < 0) return [];
  return [kind === 'AuthorizationPolicy' ? 'rules' : (ref.list ?? ref.direction), ref.index];
}

/** The parts of `spec.ingress[0].from`. */
function pathOf(field: string): (string | number)[] {
  return [...field.matchAll(/\[(\d+)\]|\["([^"]+)"\]|([^.[\]"]+)/g)].map(([, index, key, name]) =>
    index === undefined ? (key ?? name ?? '') : Number(index),
  );
}
